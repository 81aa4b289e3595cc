//! What the switchboard and the courier say to each other. `Report` goes to the courier, `Receipt`
//! comes from it. Reports carry rising numbers; the courier takes each up once, in their order, and
//! says up to which it has stored them. A snapshot stands between numbered reports and tells what is
//! so at that point of the stream.

use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// Raised with every change of a message.
pub const VERSION: u32 = 1;

/// Switchboard to courier. Channels are `ChannelKey`s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// Always first; answered with `Receipt::Heard`. `life` tells one switchboard process from the
    /// next; the numbers of each begin with 1.
    Hello {
        version: u32,
        life: u64,
    },
    /// A channel is occupied, or a user of a presence channel is there.
    Here {
        sequence: u64,
        channel: &'a str,
        user_id: Option<&'a str>,
    },
    /// Not any more.
    Gone {
        sequence: u64,
        channel: &'a str,
        user_id: Option<&'a str>,
    },
    /// Something to be passed on as it is: `kind` is the place in `push/webhook::Kind::ALL`, `json`
    /// the event as it will be sent.
    Passed {
        sequence: u64,
        kind: u8,
        channel: &'a str,
        json: &'a str,
    },
    SnapshotBegins,
    /// The channel is occupied, and these users are there. A channel with many comes in pieces.
    Present {
        channel: &'a str,
        users: Vec<&'a str>,
    },
    /// Whatever was not named since the begin is not there.
    SnapshotEnds,
}

/// Courier to switchboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Up to this number this life's reports are stored.
    Heard { sequence: u64 },
    /// The same, later.
    Stored { sequence: u64 },
}

impl<'a> Report<'a> {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        let about = |kind, sequence: u64, channel: &str, user_id: Option<&str>| {
            let mut to = Writer::new(kind);
            to.u64(sequence).text(channel).option(user_id, |to, id| {
                to.text(id);
            });
            to.finish()
        };
        match self {
            Report::Hello { version, life } => {
                let mut to = Writer::new(0);
                to.u32(*version).u64(*life);
                to.finish()
            }
            Report::Here {
                sequence,
                channel,
                user_id,
            } => about(1, *sequence, channel, *user_id),
            Report::Gone {
                sequence,
                channel,
                user_id,
            } => about(2, *sequence, channel, *user_id),
            Report::Passed {
                sequence,
                kind,
                channel,
                json,
            } => {
                let mut to = Writer::new(3);
                to.u64(*sequence).u8(*kind).text(channel).text(json);
                to.finish()
            }
            Report::SnapshotBegins => Writer::new(4).finish(),
            Report::Present { channel, users } => {
                let mut to = Writer::new(5);
                to.text(channel).list(users, |to, user| {
                    to.text(user);
                });
                to.finish()
            }
            Report::SnapshotEnds => Writer::new(6).finish(),
        }
    }

    /// Reads one frame, length field included.
    pub fn decode(frame: &'a [u8]) -> Result<Report<'a>, Garbled> {
        let (kind, mut from) = Reader::new(frame)?;
        let from = &mut from;
        let report = match kind {
            0 => Report::Hello {
                version: from.u32()?,
                life: from.u64()?,
            },
            1 => Report::Here {
                sequence: from.u64()?,
                channel: from.text()?,
                user_id: from.option(Reader::text)?,
            },
            2 => Report::Gone {
                sequence: from.u64()?,
                channel: from.text()?,
                user_id: from.option(Reader::text)?,
            },
            3 => Report::Passed {
                sequence: from.u64()?,
                kind: from.u8()?,
                channel: from.text()?,
                json: from.text()?,
            },
            4 => Report::SnapshotBegins,
            5 => Report::Present {
                channel: from.text()?,
                users: from.list(Reader::text)?,
            },
            6 => Report::SnapshotEnds,
            _ => return Err(Garbled),
        };
        from.end()?;
        Ok(report)
    }

    /// Of a numbered report.
    pub fn sequence(&self) -> Option<u64> {
        match self {
            Report::Here { sequence, .. }
            | Report::Gone { sequence, .. }
            | Report::Passed { sequence, .. } => Some(*sequence),
            _ => None,
        }
    }
}

impl Receipt {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, sequence) = match self {
            Receipt::Heard { sequence } => (0, sequence),
            Receipt::Stored { sequence } => (1, sequence),
        };
        let mut to = Writer::new(kind);
        to.u64(*sequence);
        to.finish()
    }

    /// Reads one frame, length field included.
    pub fn decode(frame: &[u8]) -> Result<Receipt, Garbled> {
        let (kind, mut from) = Reader::new(frame)?;
        let sequence = from.u64()?;
        from.end()?;
        match kind {
            0 => Ok(Receipt::Heard { sequence }),
            1 => Ok(Receipt::Stored { sequence }),
            _ => Err(Garbled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_trip_and_no_part_of_one_is_a_message() {
        let (channel, user_id) = ("a/presence-x", Some("u"));
        let sequence = 7;
        let reports = [
            Report::Hello {
                version: VERSION,
                life: 9,
            },
            Report::Here {
                sequence,
                channel,
                user_id,
            },
            Report::Gone {
                sequence,
                channel,
                user_id: None,
            },
            Report::Passed {
                sequence,
                kind: 4,
                channel,
                json: "{}",
            },
            Report::SnapshotBegins,
            Report::Present {
                channel,
                users: vec!["u", "v"],
            },
            Report::SnapshotEnds,
        ];
        for report in reports {
            let frame = report.encode();
            assert_eq!(Report::decode(&frame), Ok(report));
            for cut in 0..frame.len() {
                assert!(Report::decode(&frame[..cut]).is_err(), "cut at {cut}");
            }
        }
        for receipt in [Receipt::Heard { sequence }, Receipt::Stored { sequence }] {
            let frame = receipt.encode();
            assert_eq!(Receipt::decode(&frame), Ok(receipt));
            assert!(Receipt::decode(&frame[..frame.len() - 1]).is_err());
        }
    }
}
