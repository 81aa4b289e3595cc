//! What the master and the reactors of its children say to each other, over a socket pair that
//! each reactor inherits. The end of that stream is the end of the child.

use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// Master to reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Answer with `Report::Stats`.
    Ask,
    /// Close everything and end.
    Stop,
    /// Read the certificates anew and answer with `Report::Certificates`.
    ReadCertificates,
}

/// Reactor to master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The reactor serves: listeners are open and, in a worker, the switchboard answers.
    Ready,
    /// `Counters::values`.
    Stats(Vec<u64>),
    /// The certificates for new connections are the new ones; or why they are still the old ones.
    Certificates(Result<(), String>),
}

impl Order {
    /// One frame.
    pub fn encode(self) -> Vec<u8> {
        Writer::new(self as u8).finish()
    }

    /// Reads one frame, length field included.
    pub fn decode(frame: &[u8]) -> Result<Order, Garbled> {
        let (kind, from) = Reader::new(frame)?;
        from.end()?;
        [Order::Ask, Order::Stop, Order::ReadCertificates]
            .get(usize::from(kind))
            .copied()
            .ok_or(Garbled)
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
            Report::Certificates(outcome) => {
                let mut to = Writer::new(2);
                to.option(outcome.as_ref().err(), |to, why| {
                    to.text(why);
                });
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
            2 => {
                let fault = from.option(Reader::text)?;
                Report::Certificates(fault.map_or(Ok(()), |why| Err(why.to_string())))
            }
            _ => return Err(Garbled),
        };
        from.end()?;
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_survive_the_trip() {
        for order in [Order::Ask, Order::Stop, Order::ReadCertificates] {
            assert_eq!(Order::decode(&order.encode()), Ok(order));
        }
        for report in [
            Report::Ready,
            Report::Stats(vec![1, u64::MAX]),
            Report::Certificates(Ok(())),
            Report::Certificates(Err("no such file".to_string())),
        ] {
            assert_eq!(Report::decode(&report.encode()), Ok(report));
        }
        assert!(Order::decode(&Writer::new(9).finish()).is_err());
    }
}
