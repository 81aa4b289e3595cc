//! What the switchboard and the courier say to each other. `Report` goes to the courier, `Receipt`
//! comes from it. There are two links, and the first word says which it is: one for calls of the push
//! gateway, and one for what webhooks are told. There reports carry rising numbers; the courier takes
//! each up once, in their order, and says up to which it has stored them. A snapshot stands between
//! numbered reports and tells what is so at that point of the stream.
//!
//! In a cluster the courier's memory stands in Redis, which the courier does not know: it says what
//! is to stand there in `Receipt::Keep`, and is given what stands there in `Report::Given`.

use crate::wire::bus_codec::{Garbled, Reader, Writer};
use crate::wire::gateway::{GatewayAnswer, GatewayCall};

/// Raised with every change of a message.
pub const VERSION: u32 = 5;

/// What a frame between the two may have beyond `limits.bus_message_bytes`: one request to an endpoint
/// is as long as the longest message or `BATCH_BYTES`, and a frame of entries has one that is too long.
pub const FRAME_SURPLUS: usize = 1024 * 1024;

/// One thing in the courier's memory, or that it is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Nothing that stood there before counts.
    Anew,
    /// Endpoints are told that the channel is occupied, or that a user is there.
    Told {
        channel: &'a str,
        user_id: Option<&'a str>,
    },
    Untold {
        channel: &'a str,
        user_id: Option<&'a str>,
    },
    /// A request to be made; `letter` is `push/facts::Letter::encode`.
    Queued { id: u64, letter: &'a [u8] },
    /// Delivered or given up.
    Settled { id: u64 },
    /// What this life of a switchboard has reported up to this number is taken up.
    Heard { life: u64, sequence: u64 },
}

impl<'a> Entry<'a> {
    fn write(&self, to: &mut Writer) {
        let mut about = |kind, channel: &str, user_id: Option<&str>| {
            to.u8(kind).text(channel).option(user_id, |to, id| {
                to.text(id);
            });
        };
        match self {
            Entry::Told { channel, user_id } => about(1, channel, *user_id),
            Entry::Untold { channel, user_id } => about(2, channel, *user_id),
            Entry::Anew => drop(to.u8(0)),
            Entry::Queued { id, letter } => drop(to.u8(3).u64(*id).bytes(letter)),
            Entry::Settled { id } => drop(to.u8(4).u64(*id)),
            Entry::Heard { life, sequence } => drop(to.u8(5).u64(*life).u64(*sequence)),
        }
    }

    fn read(from: &mut Reader<'a>) -> Result<Entry<'a>, Garbled> {
        Ok(match from.u8()? {
            0 => Entry::Anew,
            1 => Entry::Told {
                channel: from.text()?,
                user_id: from.option(Reader::text)?,
            },
            2 => Entry::Untold {
                channel: from.text()?,
                user_id: from.option(Reader::text)?,
            },
            3 => Entry::Queued {
                id: from.u64()?,
                letter: from.bytes()?,
            },
            4 => Entry::Settled { id: from.u64()? },
            5 => Entry::Heard {
                life: from.u64()?,
                sequence: from.u64()?,
            },
            _ => return Err(Garbled),
        })
    }
}

/// Switchboard to courier. Channels are `ChannelKey`s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// Always first where webhooks are told; answered with `Receipt::Heard`. `life` tells one
    /// switchboard process from the next; the numbers of each begin with 1. `given`: the courier's
    /// memory follows, up to `GivenAll`, and what it has itself does not count. Otherwise it does, and
    /// in a cluster is to be kept as a whole.
    Hello {
        version: u32,
        life: u64,
        given: bool,
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
    /// A part of the memory.
    Given {
        entries: Vec<Entry<'a>>,
    },
    GivenAll,
    /// What was to be kept last is kept.
    Kept,
    /// The courier may send until then, in milliseconds since 1970.
    Licence {
        until_ms: u64,
    },
    /// Always first on a link for calls, which may come after `Receipt::Ready`.
    Calls {
        version: u32,
    },
    /// A call of the HTTP API. `ticket` comes back in `Receipt::Answer`; 0 wants none. Calls have no
    /// number: whoever waits is told when the link breaks.
    Call {
        ticket: u64,
        call: GatewayCall<'a>,
    },
    /// What came of `Receipt::Live`: the connections of each channel, in its order. Empty: it cannot
    /// be done now.
    Reached {
        ticket: u64,
        connections: Vec<u32>,
    },
}

/// Courier to switchboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt<'a> {
    /// Up to this number this life's reports are stored.
    Heard { sequence: u64 },
    /// The same, later.
    Stored { sequence: u64 },
    /// Only in a cluster: these are to be kept there, in one step. The next is said after `Kept`. `whole`:
    /// with this, all that the courier knows is kept.
    Keep {
        entries: Vec<Entry<'a>>,
        whole: bool,
    },
    /// Calls may come.
    Ready,
    Answer {
        ticket: u64,
        answer: GatewayAnswer<'a>,
    },
    /// An event for the connections in these channels, answered with `Report::Reached`. They are
    /// `ChannelKey`s, also of channels that lead to users; name and data are JSON strings, quotes
    /// included.
    Live {
        ticket: u64,
        channels: Vec<&'a str>,
        name: &'a str,
        data: &'a str,
    },
}

impl<'a> Report<'a> {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(self.kind());
        match self {
            Report::Hello {
                version,
                life,
                given,
            } => {
                to.u32(*version).u64(*life).u8(u8::from(*given));
            }
            Report::Here {
                sequence,
                channel,
                user_id,
            }
            | Report::Gone {
                sequence,
                channel,
                user_id,
            } => {
                to.u64(*sequence).text(channel);
                to.option(*user_id, |to, id| {
                    to.text(id);
                });
            }
            Report::Passed {
                sequence,
                kind,
                channel,
                json,
            } => {
                to.u64(*sequence).u8(*kind).text(channel).text(json);
            }
            Report::Present { channel, users } => {
                to.text(channel).list(users, |to, user| {
                    to.text(user);
                });
            }
            Report::Given { entries } => {
                to.list(entries, |to, entry| entry.write(to));
            }
            Report::Licence { until_ms } => {
                to.u64(*until_ms);
            }
            Report::Calls { version } => {
                to.u32(*version);
            }
            Report::Call { ticket, call } => call.write(to.u64(*ticket)),
            Report::Reached {
                ticket,
                connections,
            } => {
                to.u64(*ticket).list(connections, |to, count| {
                    to.u32(*count);
                });
            }
            Report::SnapshotBegins | Report::SnapshotEnds | Report::GivenAll | Report::Kept => {}
        }
        to.finish()
    }

    /// The first byte of its frame.
    fn kind(&self) -> u8 {
        match self {
            Report::Hello { .. } => 0,
            Report::Here { .. } => 1,
            Report::Gone { .. } => 2,
            Report::Passed { .. } => 3,
            Report::SnapshotBegins => 4,
            Report::Present { .. } => 5,
            Report::SnapshotEnds => 6,
            Report::Given { .. } => 7,
            Report::GivenAll => 8,
            Report::Kept => 9,
            Report::Licence { .. } => 10,
            Report::Call { .. } => 11,
            Report::Reached { .. } => 12,
            Report::Calls { .. } => 13,
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
                given: from.u8()? != 0,
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
            7 => Report::Given {
                entries: from.list(Entry::read)?,
            },
            8 => Report::GivenAll,
            9 => Report::Kept,
            10 => Report::Licence {
                until_ms: from.u64()?,
            },
            11 => Report::Call {
                ticket: from.u64()?,
                call: GatewayCall::read(from)?,
            },
            13 => Report::Calls {
                version: from.u32()?,
            },
            12 => Report::Reached {
                ticket: from.u64()?,
                connections: from.list(Reader::u32)?,
            },
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

impl<'a> Receipt<'a> {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Receipt::Heard { sequence } => numbered(0, *sequence),
            Receipt::Stored { sequence } => numbered(1, *sequence),
            Receipt::Keep { entries, whole } => {
                let mut to = Writer::new(2);
                to.u8(u8::from(*whole));
                to.list(entries, |to, entry| entry.write(to));
                to.finish()
            }
            Receipt::Answer { ticket, answer } => {
                let mut to = Writer::new(3);
                answer.write(to.u64(*ticket));
                to.finish()
            }
            Receipt::Live {
                ticket,
                channels,
                name,
                data,
            } => {
                let mut to = Writer::new(4);
                to.u64(*ticket).list(channels, |to, channel| {
                    to.text(channel);
                });
                to.text(name).text(data);
                to.finish()
            }
            Receipt::Ready => Writer::new(5).finish(),
        }
    }

    /// Reads one frame, length field included.
    pub fn decode(frame: &'a [u8]) -> Result<Receipt<'a>, Garbled> {
        let (kind, mut from) = Reader::new(frame)?;
        let from = &mut from;
        let receipt = match kind {
            0 => Receipt::Heard {
                sequence: from.u64()?,
            },
            1 => Receipt::Stored {
                sequence: from.u64()?,
            },
            2 => Receipt::Keep {
                whole: from.u8()? != 0,
                entries: from.list(Entry::read)?,
            },
            3 => Receipt::Answer {
                ticket: from.u64()?,
                answer: GatewayAnswer::read(from)?,
            },
            4 => Receipt::Live {
                ticket: from.u64()?,
                channels: from.list(Reader::text)?,
                name: from.text()?,
                data: from.text()?,
            },
            5 => Receipt::Ready,
            _ => return Err(Garbled),
        };
        from.end()?;
        Ok(receipt)
    }
}

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    let mut to = Writer::new(kind);
    to.u64(number);
    to.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry<'static>> {
        let (channel, user_id) = ("a/presence-x", Some("u"));
        let (sequence, id, letter) = (7, 8, b"letter");
        vec![
            Entry::Anew,
            Entry::Told { channel, user_id },
            Entry::Untold { channel, user_id },
            Entry::Queued { id, letter },
            Entry::Settled { id },
            Entry::Heard { life: 3, sequence },
        ]
    }

    #[test]
    fn every_report_survives_the_trip_and_no_part_of_one_is_a_report() {
        let (channel, user_id) = ("a/presence-x", Some("u"));
        let (sequence, entries) = (7, entries());
        let call = GatewayCall {
            app_id: "a",
            key: "k",
            method: "GET",
            segments: vec!["devices", "d/1"],
            query: vec![("limit", "7")],
            body: b"{}",
        };
        let reports = [
            Report::Hello {
                version: VERSION,
                life: 9,
                given: true,
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
            Report::Given {
                entries: entries.clone(),
            },
            Report::GivenAll,
            Report::Kept,
            Report::Licence { until_ms: 5 },
            Report::Calls { version: VERSION },
            Report::Call { ticket: 3, call },
            Report::Reached {
                ticket: 4,
                connections: vec![0, 2],
            },
        ];
        for report in reports {
            let frame = report.encode();
            assert_eq!(Report::decode(&frame), Ok(report));
            for cut in 0..frame.len() {
                assert!(Report::decode(&frame[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn every_receipt_survives_the_trip_and_no_part_of_one_is_a_receipt() {
        let (sequence, entries, whole) = (7, entries(), true);
        let receipts = [
            Receipt::Keep { entries, whole },
            Receipt::Heard { sequence },
            Receipt::Stored { sequence },
            Receipt::Answer {
                ticket: 3,
                answer: GatewayAnswer {
                    status: 503,
                    body: "{}",
                    retry_seconds: Some(1),
                },
            },
            Receipt::Live {
                ticket: 4,
                channels: vec!["a/u", "a/v"],
                name: "\"n\"",
                data: "\"d\"",
            },
            Receipt::Ready,
        ];
        for receipt in receipts {
            let frame = receipt.encode();
            assert_eq!(Receipt::decode(&frame), Ok(receipt));
            for cut in 0..frame.len() {
                assert!(Receipt::decode(&frame[..cut]).is_err(), "cut at {cut}");
            }
        }
    }
}
