//! Whether the peer of a connection is still there: when to ask it with a PING, and when to stop
//! believing. Owns the times; sends nothing. Invariant: whoever sent a byte was there.

use std::time::Duration;

use crate::base::now::Moment;

/// How long silence is borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PulseOptions {
    /// With requests under way: then a PING is sent.
    pub busy: Duration,
    /// With none under way. Keeps the flow known to address translators and firewalls, too.
    pub idle: Duration,
    /// The time for the answer to a PING, and for the server's first SETTINGS.
    pub answer: Duration,
}

impl Default for PulseOptions {
    fn default() -> PulseOptions {
        PulseOptions {
            busy: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            answer: Duration::from_secs(10),
        }
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Fine,
    Ping,
    Dead(&'static str),
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Pulse {
    options: PulseOptions,
    /// When the last byte came.
    heard: Moment,
    /// Since when requests are under way.
    busy: Option<Moment>,
    /// When a PING was sent that was not answered yet.
    pinged: Option<Moment>,
    /// Since when its first SETTINGS are awaited.
    unsettled: Option<Moment>,
}

impl Pulse {
    pub fn new(options: PulseOptions, now: Moment) -> Pulse {
        Pulse {
            options,
            heard: now,
            busy: None,
            pinged: None,
            unsettled: Some(now),
        }
    }

    pub fn heard(&mut self, now: Moment) {
        self.heard = now;
    }

    pub fn settled(&mut self) {
        self.unsettled = None;
    }

    pub fn ponged(&mut self) {
        self.pinged = None;
    }

    pub fn is_pinged(&self) -> bool {
        self.pinged.is_some()
    }

    /// Requests are under way, or none is.
    pub fn set_busy(&mut self, busy: bool, now: Moment) {
        self.busy = self.busy.filter(|_| busy).or(busy.then_some(now));
    }

    /// When `check` has something to say.
    pub fn deadline(&self) -> Moment {
        if let Some(opened) = self.unsettled {
            return opened + self.options.answer;
        }
        match (self.pinged, self.busy) {
            (Some(pinged), _) => self.heard.max(pinged) + self.options.answer,
            (None, Some(busy)) => self.heard.max(busy) + self.options.busy,
            (None, None) => self.heard + self.options.idle,
        }
    }

    pub fn check(&mut self, now: Moment) -> Beat {
        match self.pinged {
            _ if self.deadline() > now => Beat::Fine,
            _ if self.unsettled.is_some() => {
                Beat::Dead("the server does not begin to speak HTTP/2")
            }
            Some(_) => Beat::Dead("the server does not answer a PING"),
            None => self.doubt(now),
        }
    }

    /// An answer is late: is anybody there?
    pub fn doubt(&mut self, now: Moment) -> Beat {
        if self.unsettled.is_some() || self.pinged.is_some() || self.heard >= now {
            return Beat::Fine;
        }
        self.pinged = Some(now);
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    fn settled() -> Pulse {
        let mut pulse = Pulse::new(PulseOptions::default(), at(0));
        pulse.settled();
        pulse
    }

    #[test]
    fn silence_is_borne_longer_when_nothing_is_asked() {
        let mut pulse = settled();
        assert_eq!(pulse.deadline(), at(300));
        pulse.set_busy(true, at(100));
        pulse.set_busy(true, at(105));
        assert_eq!(pulse.deadline(), at(110), "the first of them counts");
        assert_eq!(pulse.check(at(109)), Beat::Fine);
        assert_eq!(pulse.check(at(110)), Beat::Ping);
        assert_eq!(pulse.check(at(110)), Beat::Fine);
        pulse.heard(at(111));
        pulse.ponged();
        pulse.set_busy(false, at(112));
        assert_eq!(pulse.deadline(), at(411));
    }

    #[test]
    fn whoever_speaks_is_there_even_without_answering() {
        let mut pulse = settled();
        assert_eq!(pulse.check(at(300)), Beat::Ping);
        pulse.heard(at(309));
        assert_eq!(pulse.check(at(318)), Beat::Fine);
        assert!(matches!(pulse.check(at(319)), Beat::Dead(_)));
    }

    #[test]
    fn a_server_without_settings_is_none() {
        let mut pulse = Pulse::new(PulseOptions::default(), at(0));
        assert_eq!(pulse.doubt(at(5)), Beat::Fine);
        pulse.heard(at(9));
        assert!(matches!(pulse.check(at(10)), Beat::Dead(_)));
    }

    #[test]
    fn doubt_is_settled_by_one_ping() {
        let mut pulse = settled();
        assert_eq!(pulse.doubt(at(0)), Beat::Fine, "it was just heard");
        assert_eq!(pulse.doubt(at(3)), Beat::Ping);
        assert_eq!(pulse.doubt(at(4)), Beat::Fine);
        assert!(matches!(pulse.check(at(13)), Beat::Dead(_)));
    }
}
