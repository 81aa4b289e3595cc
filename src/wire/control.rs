//! What the master and the reactors of its children say to each other, over a socket pair that
//! each reactor inherits. The end of that stream is the end of the child.

use std::cmp::Ordering;
use std::time::Duration;

use crate::wire::bus_codec::{Garbled, Reader, Writer};
use crate::wire::numbers::Numbers;

/// Master to reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Answer with `Report::Stats`.
    Ask,
    /// Close everything and end.
    Stop,
    /// Take in nobody, tell everybody to go, evenly over this time, and end when they have.
    Drain { window: Duration },
    /// Answer with `Report::Beat`.
    Beat,
    /// Answer with `Report::Connections`.
    List(Wanted),
    /// Close the connection with this id, as `ConnId::to_u64`; answer with `Report::Closed`.
    Close { conn: u64 },
    /// Read the certificates anew and answer with `Report::Certificates`.
    ReadCertificates,
    /// The answer to `Report::Gather`.
    Gathered(Numbers),
    /// An operator's call for the courier, as a frame of `courier_bus::Report::Call`; answer with
    /// `Report::Answered`.
    Call(Vec<u8>),
}

/// Which connections are to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many: those that come first in the order of `sort`.
    pub limit: u32,
    /// Place in `COLUMNS`.
    pub sort: u8,
    /// Only those that have this text in one of their cells; empty for all.
    pub filter: String,
}

/// What a reactor tells of a connection, by the names that `connections` sorts by. Numbers are
/// sorted from the largest, words from the smallest.
pub const COLUMNS: &[&str] = &[
    "id",
    "protocol",
    "recv-q",
    "send-q",
    "bytes-in",
    "bytes-out",
    "status",
    "user",
    "channels",
    "age",
    "remote",
];

/// In the place of a listener: we connected to the other end.
pub const DIALLED: u32 = u32::MAX;

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionRow {
    pub conn: u64,
    /// Place in the configuration; `DIALLED` for a connection that came through none.
    pub listener: u32,
    pub protocol: String,
    pub status: String,
    /// Bytes received and not understood yet.
    pub recv_queue: u64,
    /// Bytes that wait for the peer to take them.
    pub send_queue: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// As which the connection is in presence channels.
    pub user: Option<String>,
    pub channels: u32,
    pub age_ms: u64,
    /// The client's address.
    pub remote: String,
    /// The proxy who said so; empty without one.
    pub via: String,
}

/// Reactor to master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The reactor serves: listeners are open and, in a worker, the switchboard answers.
    Ready,
    /// `Counters::values`.
    Stats(Vec<u64>),
    /// The reactor turns.
    Beat,
    Connections {
        /// How many fit the question, listed or not.
        matched: u64,
        rows: Vec<ConnectionRow>,
    },
    /// Whether there was such a connection.
    Closed(bool),
    /// The certificates for new connections are the new ones; or why they are still the old ones.
    Certificates(Result<(), String>),
    /// Answer with `Order::Gathered`.
    Gather,
    /// The answer to `Order::Call`: a status of HTTP and JSON.
    Answered {
        ticket: u64,
        status: u16,
        body: String,
    },
    /// The courier cannot serve with this configuration, and neither can another one; why.
    Unfit(String),
}

impl Order {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Order::Ask => Writer::new(0).finish(),
            Order::Stop => Writer::new(1).finish(),
            Order::Drain { window } => {
                let mut to = Writer::new(2);
                to.u64(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
                to.finish()
            }
            Order::Beat => Writer::new(3).finish(),
            Order::List(wanted) => {
                let mut to = Writer::new(4);
                to.u32(wanted.limit).u8(wanted.sort).text(&wanted.filter);
                to.finish()
            }
            Order::Close { conn } => {
                let mut to = Writer::new(5);
                to.u64(*conn);
                to.finish()
            }
            Order::ReadCertificates => Writer::new(6).finish(),
            Order::Gathered(numbers) => {
                let mut to = Writer::new(7);
                numbers.write(&mut to);
                to.finish()
            }
            Order::Call(frame) => {
                let mut to = Writer::new(8);
                to.bytes(frame);
                to.finish()
            }
        }
    }

    /// Reads one frame, length field included.
    pub fn decode(frame: &[u8]) -> Result<Order, Garbled> {
        let (kind, mut from) = Reader::new(frame)?;
        let order = match kind {
            0 => Order::Ask,
            1 => Order::Stop,
            2 => Order::Drain {
                window: Duration::from_millis(from.u64()?),
            },
            3 => Order::Beat,
            4 => Order::List(Wanted {
                limit: from.u32()?,
                sort: from.u8()?,
                filter: from.text()?.to_owned(),
            }),
            5 => Order::Close { conn: from.u64()? },
            6 => Order::ReadCertificates,
            7 => Order::Gathered(Numbers::read(&mut from)?),
            8 => Order::Call(from.bytes()?.to_vec()),
            _ => return Err(Garbled),
        };
        from.end()?;
        Ok(order)
    }
}

impl Report {
    /// One frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Report::Ready => Writer::new(0).finish(),
            Report::Stats(values) => {
                let mut to = Writer::new(1);
                to.list(values, |to, value| {
                    to.u64(*value);
                });
                to.finish()
            }
            Report::Beat => Writer::new(2).finish(),
            Report::Connections { matched, rows } => {
                let mut to = Writer::new(3);
                to.u64(*matched);
                to.list(rows, |to, row| row.write(to));
                to.finish()
            }
            Report::Closed(found) => {
                let mut to = Writer::new(4);
                to.u8(u8::from(*found));
                to.finish()
            }
            Report::Certificates(outcome) => {
                let mut to = Writer::new(5);
                to.option(outcome.as_ref().err(), |to, why| {
                    to.text(why);
                });
                to.finish()
            }
            Report::Gather => Writer::new(6).finish(),
            Report::Answered {
                ticket,
                status,
                body,
            } => {
                let mut to = Writer::new(7);
                to.u64(*ticket).u32(u32::from(*status)).text(body);
                to.finish()
            }
            Report::Unfit(why) => {
                let mut to = Writer::new(8);
                to.text(why);
                to.finish()
            }
        }
    }

    /// Reads one frame, length field included.
    pub fn decode(frame: &[u8]) -> Result<Report, Garbled> {
        let (kind, mut from) = Reader::new(frame)?;
        let report = match kind {
            0 => Report::Ready,
            1 => Report::Stats(from.list(Reader::u64)?),
            2 => Report::Beat,
            3 => Report::Connections {
                matched: from.u64()?,
                rows: from.list(ConnectionRow::read)?,
            },
            4 => Report::Closed(from.u8()? != 0),
            5 => {
                let fault = from.option(Reader::text)?;
                Report::Certificates(fault.map_or(Ok(()), |why| Err(why.to_string())))
            }
            6 => Report::Gather,
            7 => Report::Answered {
                ticket: from.u64()?,
                status: u16::try_from(from.u32()?).map_err(|_| Garbled)?,
                body: from.text()?.to_owned(),
            },
            8 => Report::Unfit(from.text()?.to_owned()),
            _ => return Err(Garbled),
        };
        from.end()?;
        Ok(report)
    }
}

impl ConnectionRow {
    /// Which of two comes first when sorted by a column of `COLUMNS`.
    pub fn compare(&self, b: &ConnectionRow, column: &str) -> Ordering {
        let by = match column {
            "protocol" => self.protocol.cmp(&b.protocol),
            "recv-q" => b.recv_queue.cmp(&self.recv_queue),
            "send-q" => b.send_queue.cmp(&self.send_queue),
            "bytes-in" => b.bytes_in.cmp(&self.bytes_in),
            "bytes-out" => b.bytes_out.cmp(&self.bytes_out),
            "status" => self.status.cmp(&b.status),
            // Those without a user last.
            "user" => (self.user.is_none(), &self.user).cmp(&(b.user.is_none(), &b.user)),
            "channels" => b.channels.cmp(&self.channels),
            "age" => b.age_ms.cmp(&self.age_ms),
            "remote" => self.remote.cmp(&b.remote),
            _ => Ordering::Equal,
        };
        by.then(self.conn.cmp(&b.conn))
    }

    fn write(&self, to: &mut Writer) {
        to.u64(self.conn).u32(self.listener).u32(self.channels);
        for number in [
            self.recv_queue,
            self.send_queue,
            self.bytes_in,
            self.bytes_out,
            self.age_ms,
        ] {
            to.u64(number);
        }
        for word in [&self.protocol, &self.status, &self.remote, &self.via] {
            to.text(word);
        }
        to.option(self.user.as_deref(), |to, user| {
            to.text(user);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<ConnectionRow, Garbled> {
        Ok(ConnectionRow {
            conn: from.u64()?,
            listener: from.u32()?,
            channels: from.u32()?,
            recv_queue: from.u64()?,
            send_queue: from.u64()?,
            bytes_in: from.u64()?,
            bytes_out: from.u64()?,
            age_ms: from.u64()?,
            protocol: from.text()?.to_owned(),
            status: from.text()?.to_owned(),
            remote: from.text()?.to_owned(),
            via: from.text()?.to_owned(),
            user: from.option(Reader::text)?.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::numbers::{ProcessNumbers, Whose};

    fn numbers() -> Numbers {
        let process = |whose| ProcessNumbers {
            whose,
            up: true,
            restarts: 1,
            memory_bytes: Some(2),
            cpu_ms: None,
            counters: vec![3, u64::MAX],
        };
        Numbers {
            started_unix_ms: 4,
            uptime_ms: 5,
            processes: vec![
                process(Whose::Master),
                process(Whose::Switchboard),
                process(Whose::Worker(7)),
            ],
        }
    }

    #[test]
    fn orders_and_reports_survive_the_trip() {
        let wanted = Wanted {
            limit: 7,
            sort: 2,
            filter: "ü".into(),
        };
        for order in [
            Order::Ask,
            Order::Stop,
            Order::Drain {
                window: Duration::from_millis(1500),
            },
            Order::Beat,
            Order::List(wanted),
            Order::Close { conn: 1 << 40 },
            Order::ReadCertificates,
            Order::Gathered(numbers()),
            Order::Call(vec![1, 2]),
        ] {
            assert_eq!(Order::decode(&order.encode()), Ok(order));
        }
        let row = ConnectionRow {
            conn: 9,
            protocol: "websocket".into(),
            user: Some("u".into()),
            via: "unix".into(),
            age_ms: 4,
            ..ConnectionRow::default()
        };
        for report in [
            Report::Ready,
            Report::Stats(vec![1, u64::MAX]),
            Report::Beat,
            Report::Connections {
                matched: 2,
                rows: vec![row],
            },
            Report::Closed(true),
            Report::Certificates(Ok(())),
            Report::Certificates(Err("no such file".to_string())),
            Report::Gather,
            Report::Answered {
                ticket: 7,
                status: 404,
                body: "{}".to_string(),
            },
            Report::Unfit("no key".to_string()),
        ] {
            assert_eq!(Report::decode(&report.encode()), Ok(report));
        }
        assert!(Order::decode(&Writer::new(9).finish()).is_err());
    }
}
