//! The dials of a worker from when an application asks for one until it is told of the outcome. Does
//! not dial. Invariant: a dial is under way, or its refusal waits to be told, or it is over; it is
//! never two of these.
//!
//! Bounds: `limits.dials` are under way. A refusal is told in a later turn than it was decided in,
//! so that an application that dials again at once turns with the reactor instead of holding it;
//! at most those of one turn wait, which are as many as applications asked for in it.

use std::collections::{BTreeMap, VecDeque};

use crate::app::handler::Handler;
use crate::base::ids::{ConnId, DialId};
use crate::base::now::Moment;
use crate::wire::target::Target;

/// See the file's head.
pub struct Dials {
    next: u64,
    under_way: BTreeMap<DialId, Dial>,
    refusals: VecDeque<Refusal>,
    max: usize,
}

/// One that is under way.
pub struct Dial {
    /// Whose application is to be told.
    pub handler: Handler,
    pub target: Target,
    /// When the time of its target is up; not known before it was begun.
    pub until: Moment,
    /// Its connection, while the WebSocket handshake lasts.
    pub conn: Option<ConnId>,
}

/// To be told.
pub struct Refusal {
    pub dial: DialId,
    pub handler: Handler,
    pub why: &'static str,
}

impl Dials {
    /// At most `max` are under way.
    pub fn new(max: usize) -> Dials {
        Dials {
            next: 1,
            under_way: BTreeMap::new(),
            refusals: VecDeque::new(),
            max,
        }
    }

    /// A new dial, and whether it is under way; else it is refused already.
    pub fn begin(&mut self, handler: Handler, target: &Target) -> (DialId, bool) {
        let dial = DialId(self.next);
        self.next += 1;
        let begun = self.under_way.len() < self.max;
        if begun {
            let entry = Dial {
                handler,
                target: target.clone(),
                until: Moment::default(),
                conn: None,
            };
            self.under_way.insert(dial, entry);
        } else {
            let why = "too many connections are being established (limits.dials)";
            self.refusals.push_back(Refusal { dial, handler, why });
        }
        (dial, begun)
    }

    pub fn get_mut(&mut self, dial: DialId) -> Option<&mut Dial> {
        self.under_way.get_mut(&dial)
    }

    /// When its time is up.
    pub fn until(&self, dial: DialId) -> Option<Moment> {
        self.under_way.get(&dial).map(|dial| dial.until)
    }

    /// It is over, for better or worse.
    pub fn remove(&mut self, dial: DialId) -> Option<Dial> {
        self.under_way.remove(&dial)
    }

    /// What is under way, in the order it was begun.
    pub fn ids(&self) -> Vec<DialId> {
        self.under_way.keys().copied().collect()
    }

    /// It will not be; that is told later. Returns what was under way.
    pub fn refuse(&mut self, dial: DialId, why: &'static str) -> Option<Dial> {
        let found = self.under_way.remove(&dial)?;
        let handler = found.handler;
        self.refusals.push_back(Refusal { dial, handler, why });
        Some(found)
    }

    /// What is to be told now; what is refused meanwhile comes next time.
    pub fn take_refusals(&mut self) -> VecDeque<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    /// At once, while there is something to tell.
    pub fn deadline(&self) -> Option<Moment> {
        self.refusals.front().map(|_| Moment::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_over_the_bound_is_refused_and_every_number_is_new() {
        let target = Target::parse("tcp://a:1").expect("a URL");
        let mut dials = Dials::new(2);
        let begun: Vec<(DialId, bool)> = (0..3)
            .map(|_| dials.begin(Handler::Echo, &target))
            .collect();
        let expected = [(DialId(1), true), (DialId(2), true), (DialId(3), false)];
        assert_eq!(begun, expected);
        assert_eq!(dials.deadline(), Some(Moment::default()));
        assert!(dials.refuse(DialId(1), "given up").is_some());
        assert!(dials.refuse(DialId(1), "given up").is_none());
        let told: Vec<DialId> = dials.take_refusals().iter().map(|it| it.dial).collect();
        assert_eq!(told, [DialId(3), DialId(1)]);
        assert_eq!(dials.deadline(), None);
        assert_eq!(dials.begin(Handler::Echo, &target), (DialId(4), true));
        assert_eq!(dials.ids(), [DialId(2), DialId(4)]);
    }
}
