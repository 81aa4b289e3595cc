//! Which worker holds which session of many requests, and who receives for it elsewhere. In the
//! switchboard. Knows no lines of a session. Invariant: a session has one holder; with it go its
//! sessions.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::base::dice::Dice;
use crate::realtime::registry::LinkId;
use crate::wire::bus::Caller;

struct Held {
    holder: LinkId,
    /// Another worker's errand that waits for lines.
    receiver: Option<Caller>,
}

/// By name. As many as the workers may hold together, since none is here that none of them holds.
pub struct Sessions {
    by_name: HashMap<Box<str>, Held, FixedState>,
}

impl Sessions {
    pub fn new(dice: &mut Dice) -> Sessions {
        Sessions {
            by_name: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
        }
    }

    pub fn holder(&self, name: &str) -> Option<LinkId> {
        self.by_name.get(name).map(|held| held.holder)
    }

    /// The link holds the session from now on.
    pub fn hold(&mut self, name: &str, holder: LinkId) {
        let receiver = None;
        self.by_name.insert(name.into(), Held { holder, receiver });
    }

    /// Notes who is to be told when the holder is no more.
    pub fn receives(&mut self, name: &str, receiver: Caller) {
        if let Some(held) = self.by_name.get_mut(name) {
            held.receiver = Some(receiver);
        }
    }

    /// The caller waits no more, if it did.
    pub fn released(&mut self, name: &str, caller: Caller) {
        if let Some(held) = self.by_name.get_mut(name)
            && held.receiver == Some(caller)
        {
            held.receiver = None;
        }
    }

    /// The link holds the session no more; what another link says is ignored.
    pub fn end(&mut self, name: &str, holder: LinkId) {
        if self.holder(name) == Some(holder) {
            self.by_name.remove(name);
        }
    }

    /// The link is no more, and so are its sessions: who received for them.
    pub fn drop_link(&mut self, link: LinkId) -> Vec<Caller> {
        let mut told = Vec::new();
        let of = |caller: &Caller| LinkId::new(caller.slot, caller.life);
        self.by_name.retain(|_, held| {
            held.receiver = held.receiver.filter(|caller| of(caller) != link);
            if held.holder == link {
                told.extend(held.receiver);
            }
            held.holder != link
        });
        told.sort_unstable_by_key(|caller| (caller.slot, caller.life, caller.ticket));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(slot: u32, ticket: u64) -> Caller {
        let life = 1;
        Caller { slot, life, ticket }
    }

    #[test]
    fn with_a_link_go_its_sessions_and_who_received_is_told() {
        let [one, two] = [LinkId::new(0, 1), LinkId::new(1, 1)];
        let mut sessions = Sessions::new(&mut Dice::new([1; 16]));
        sessions.hold("a", one);
        sessions.hold("b", one);
        sessions.hold("c", two);
        sessions.receives("a", caller(1, 5));
        sessions.receives("b", caller(1, 6));
        sessions.released("b", caller(1, 6));
        sessions.receives("c", caller(0, 7));
        sessions.end("c", one);
        assert_eq!(sessions.drop_link(one), [caller(1, 5)]);
        assert_eq!(
            (sessions.holder("a"), sessions.holder("c")),
            (None, Some(two))
        );
        assert_eq!(
            sessions.drop_link(two),
            [],
            "who received is no more either"
        );
        assert_eq!(sessions.holder("c"), None);
    }
}
