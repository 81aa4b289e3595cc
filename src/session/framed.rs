//! One connection that speaks a framing: Fresh → Open ⇄ Doubted → Ended. Bytes in, messages out;
//! silence is measured by what the peer sends, whatever we send meanwhile. Such a protocol has no
//! PING and no Close frame of its own: whether the peer can be asked for a sign of life, and what
//! it is told at the end, is the application's to say. Invariant: after a violation nothing more
//! is read.

use std::time::Duration;

use crate::base::bytes::Inbox;
use crate::base::close::Close;
use crate::base::now::{Moment, Now};
use crate::wire::framing::{self, Framing, Payload};

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct FramedOptions {
    /// One message with what the framing adds to it.
    pub message_bytes: usize,
    /// Time for the first message to come whole, where the peer has to say who it is.
    pub first_within: Option<Duration>,
    /// Silence after which the peer is in doubt.
    pub doubt_after: Duration,
    /// Time for it to send anything at all.
    pub heard_within: Duration,
}

pub struct Framed {
    framing: &'static dyn Framing,
    life: Life,
    /// When bytes last came.
    heard: Moment,
    /// Bytes left in the inbox at the last look: only more than that is news.
    partial: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// No message came yet.
    Fresh {
        since: Moment,
    },
    Open,
    /// Silent for long.
    Doubted {
        since: Moment,
    },
    Ended,
}

/// What came of the input so far.
#[derive(Debug, PartialEq, Eq)]
pub enum FramedStep<'a> {
    Idle,
    Message(Payload<'a>),
    /// Flush what is in the outbox, then end.
    Close(Close),
}

/// What a passed deadline asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum FramedDue {
    /// Send something the peer answers, if there is such a thing.
    Ask,
    Close(Close),
}

impl Framed {
    pub fn new(framing: &'static dyn Framing, now: Now) -> Framed {
        Framed {
            framing,
            life: Life::Fresh { since: now.moment },
            heard: now.moment,
            partial: 0,
        }
    }

    /// For a peer whose first words were said before.
    pub fn opened(framing: &'static dyn Framing, now: Now) -> Framed {
        Framed {
            life: Life::Open,
            ..Framed::new(framing, now)
        }
    }

    /// A sign of life that is no message.
    pub fn hear(&mut self, now: Now) {
        self.heard = now.moment;
        if let Life::Doubted { .. } = self.life {
            self.life = Life::Open;
        }
    }

    /// Reads on. To be called until it returns `Idle` or `Close`; what it leaves in the inbox it
    /// wants to see again, with more behind it.
    pub fn next<'a>(
        &mut self,
        inbox: &mut Inbox<'a>,
        now: Now,
        options: &FramedOptions,
    ) -> FramedStep<'a> {
        if self.life == Life::Ended {
            inbox.take(inbox.rest().len());
            return FramedStep::Idle;
        }
        if inbox.rest().len() > self.partial {
            self.hear(now);
        }
        let step = framing::next(self.framing, inbox, options.message_bytes);
        self.partial = inbox.rest().len();
        match step {
            Ok(None) => FramedStep::Idle,
            Ok(Some(payload)) => {
                self.life = Life::Open;
                FramedStep::Message(payload)
            }
            Err(violation) => {
                self.life = Life::Ended;
                FramedStep::Close(Close::Violation(violation))
            }
        }
    }

    /// What is due when `deadline` has passed.
    pub fn elapsed(&mut self, now: Now, options: &FramedOptions) -> Option<FramedDue> {
        if now.moment < self.deadline(options)? {
            return None;
        }
        let close = match self.life {
            Life::Fresh { .. } if options.first_within.is_some() => Close::TooLate,
            Life::Fresh { .. } | Life::Open => {
                self.life = Life::Doubted { since: now.moment };
                return Some(FramedDue::Ask);
            }
            Life::Doubted { .. } => Close::Unheard,
            Life::Ended => return None,
        };
        self.life = Life::Ended;
        Some(FramedDue::Close(close))
    }

    pub fn deadline(&self, options: &FramedOptions) -> Option<Moment> {
        match self.life {
            Life::Fresh { since } => Some(match options.first_within {
                Some(within) => since + within,
                None => self.heard + options.doubt_after,
            }),
            Life::Open => Some(self.heard + options.doubt_after),
            Life::Doubted { since } => Some(since + options.heard_within),
            Life::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::close::Violation;
    use crate::wire::lines::Lines;

    const OPTIONS: FramedOptions = FramedOptions {
        message_bytes: 8,
        first_within: Some(Duration::from_secs(10)),
        doubt_after: Duration::from_secs(120),
        heard_within: Duration::from_secs(30),
    };

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment::from_micros(1_000_000 * seconds),
            unix_ms: 0,
        }
    }

    fn feed(framed: &mut Framed, bytes: &[u8], seconds: u64) -> Vec<String> {
        let mut bytes = bytes.to_vec();
        let mut inbox = Inbox::new(&mut bytes);
        let mut told = Vec::new();
        loop {
            match framed.next(&mut inbox, at(seconds), &OPTIONS) {
                FramedStep::Idle => return told,
                FramedStep::Message(payload) => told.push(format!("{payload:?}")),
                FramedStep::Close(close) => {
                    told.push(format!("{close:?}"));
                    return told;
                }
            }
        }
    }

    #[test]
    fn messages_come_out_and_after_a_violation_nothing_does() {
        let mut framed = Framed::new(&Lines, at(0));
        assert_eq!(
            feed(&mut framed, b"a\nb\nc", 1),
            ["Text(\"a\")", "Text(\"b\")"]
        );
        let close = format!("{:?}", Close::Violation(Violation::TooBig));
        assert_eq!(feed(&mut framed, b"123456789", 2), [close]);
        assert_eq!(feed(&mut framed, b"a\n", 3), [""; 0]);
        assert_eq!(framed.deadline(&OPTIONS), None);
    }

    #[test]
    fn who_never_finishes_a_first_message_is_too_late() {
        let mut framed = Framed::new(&Lines, at(0));
        feed(&mut framed, b"hal", 9);
        assert_eq!(framed.elapsed(at(9), &OPTIONS), None);
        let due = framed.elapsed(at(10), &OPTIONS);
        assert_eq!(due, Some(FramedDue::Close(Close::TooLate)));
    }

    #[test]
    fn silence_is_doubted_then_ended_and_any_byte_counts_as_life() {
        let mut framed = Framed::new(&Lines, at(0));
        feed(&mut framed, b"a\n", 5);
        assert_eq!(framed.elapsed(at(124), &OPTIONS), None);
        assert_eq!(framed.elapsed(at(125), &OPTIONS), Some(FramedDue::Ask));
        feed(&mut framed, b"b", 130);
        assert_eq!(framed.deadline(&OPTIONS), Some(at(250).moment));
        // The same unfinished byte, looked at again, is no sign of life.
        feed(&mut framed, b"b", 200);
        assert_eq!(framed.elapsed(at(250), &OPTIONS), Some(FramedDue::Ask));
        assert_eq!(framed.elapsed(at(279), &OPTIONS), None);
        let due = framed.elapsed(at(280), &OPTIONS);
        assert_eq!(due, Some(FramedDue::Close(Close::Unheard)));
    }

    #[test]
    fn without_an_introduction_to_wait_for_silence_from_the_start_is_silence() {
        let options = FramedOptions {
            first_within: None,
            ..OPTIONS
        };
        let mut framed = Framed::new(&Lines, at(0));
        assert_eq!(framed.elapsed(at(119), &options), None);
        assert_eq!(framed.elapsed(at(120), &options), Some(FramedDue::Ask));
    }
}
