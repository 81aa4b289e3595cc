//! The master's end of the pair to one reactor: orders down, reports up. Does not know what the
//! master makes of a report. Invariant: at most one question is open, so a reactor that does not
//! answer is not buried in questions.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::net::UnixStream;

use crate::base::counters::Counters;
use crate::run::inheritance::{Keep, Pair};
use crate::wire::bus_codec::{Extent, measure};
use crate::wire::control::{ConnectionRow, Order, Report, Wanted};

/// One report. A list of connections is the longest, and bounded by its sender; more is nonsense.
const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Orders that wait for a reactor to read them. They are few and short but for the numbers of the
/// whole server, which it gets once for each time it asks.
const ORDERS_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What reading brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// It reported that it serves.
    pub ready: bool,
    /// It said anything at all.
    pub spoke: bool,
    /// The other end closed, or what it says makes no sense.
    pub lost: bool,
    /// It has read the certificates anew, or could not.
    pub certificates: Option<Result<(), String>>,
    /// It wants the numbers of the whole server.
    pub gather: bool,
    /// Answers to calls: ticket, status, body.
    pub answers: Vec<(u64, u16, String)>,
    /// It cannot serve as it is configured; why.
    pub unfit: Option<String>,
}

#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    lost: bool,
    asked: bool,
    /// Beats asked for since it last said anything.
    missed: u32,
    /// Whether a list of connections, or the closing of one, was asked for and not answered.
    pub listing: bool,
    /// The answer that is to come is to an earlier question than the latest.
    stale: bool,
    /// The answer to the latest question for connections.
    pub listed: Option<(u64, Vec<ConnectionRow>)>,
    /// The answer to the latest closing.
    pub closed: Option<bool>,
    /// The latest numbers; zeros before the first.
    pub counters: Counters,
}

impl Link {
    pub fn new(stream: UnixStream) -> Link {
        Link {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            lost: false,
            asked: false,
            missed: 0,
            listing: false,
            stale: false,
            listed: None,
            closed: None,
            counters: Counters::default(),
        }
    }

    /// Goes on with a pair that the program before had.
    pub fn restore(stream: UnixStream, pair: Pair) -> Link {
        Link {
            input: pair.input,
            listing: pair.listing,
            ..Link::new(stream)
        }
    }

    /// For the program that takes over.
    pub fn leave(&self, keep: &mut Keep) -> Pair {
        Pair {
            fd: keep.note(&self.stream),
            input: self.input.clone(),
            listing: self.listing,
        }
    }

    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Asks for numbers, unless an earlier question is still open.
    pub fn ask(&mut self) {
        if !self.asked && !self.lost {
            self.asked = self.send(&Order::Ask);
        }
    }

    /// Whether a question is open.
    pub fn owes_answer(&self) -> bool {
        self.asked && !self.lost
    }

    /// Asks for a sign of life. Returns how many of these questions in a row it has not heard; it
    /// is not asked again before it has.
    pub fn beat(&mut self) -> u32 {
        if self.missed == 0 {
            self.send(&Order::Beat);
        }
        self.missed += 1;
        self.missed - 1
    }

    pub fn stop(&mut self) {
        self.send(&Order::Stop);
    }

    pub fn drain(&mut self, window: Duration) {
        self.send(&Order::Drain { window });
    }

    /// Asks for connections, unless it is busy with an earlier question.
    pub fn list(&mut self, wanted: &Wanted) {
        self.question(&Order::List(wanted.clone()));
    }

    /// Asks to close a connection.
    pub fn close(&mut self, conn: u64) {
        self.question(&Order::Close { conn });
    }

    fn question(&mut self, order: &Order) {
        self.listed = None;
        self.closed = None;
        self.stale = self.listing;
        if !self.listing && !self.lost {
            self.listing = self.send(order);
        }
    }

    /// Whether a question about connections is open.
    pub fn owes_listing(&self) -> bool {
        self.listing && !self.lost
    }

    /// Has it read the certificates anew; `Heard::certificates` tells how that went.
    pub fn read_certificates(&mut self) {
        self.send(&Order::ReadCertificates);
    }

    /// Passes a call on; whether it can be answered.
    pub fn call(&mut self, frame: Vec<u8>) -> bool {
        !self.lost && self.send(&Order::Call(frame))
    }

    /// Answers `Heard::gather`.
    pub fn gathered(&mut self, order: &Order) {
        self.send(order);
    }

    /// A reactor that reads nothing shows as busy, and is killed when it has to stop.
    fn send(&mut self, order: &Order) -> bool {
        let frame = order.encode();
        if self.output.len() + frame.len() > ORDERS_BYTES_MAX {
            return false;
        }
        self.output.extend_from_slice(&frame);
        self.flush();
        true
    }

    /// Writes what waits, as far as the pair takes it. That it broke is seen when it is read.
    pub fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) if count > 0 => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    /// Reads what is there.
    pub fn read(&mut self) -> Heard {
        let mut heard = Heard::default();
        if self.lost {
            return heard;
        }
        let end = self.fill();
        let sense = self.take_reports(&mut heard);
        if end.is_err() || !sense {
            self.lost = true;
            heard.lost = true;
        }
        heard
    }

    /// An error is the end of the pair, whatever the reason.
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        while self.input.len() <= REPORT_BYTES_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::InvalidData.into())
    }

    fn take_reports(&mut self, heard: &mut Heard) -> bool {
        loop {
            match measure(&self.input, REPORT_BYTES_MAX) {
                Ok(Extent::Partial) => return true,
                Ok(Extent::Whole(length)) => {
                    heard.spoke = true;
                    self.missed = 0;
                    match Report::decode(&self.input[..length]) {
                        Ok(Report::Ready) => heard.ready = true,
                        Ok(Report::Beat) => {}
                        Ok(Report::Connections { matched, rows }) => {
                            self.listing = false;
                            self.listed = Some((matched, rows)).filter(|_| !self.stale);
                        }
                        Ok(Report::Closed(found)) => {
                            self.listing = false;
                            self.closed = Some(found).filter(|_| !self.stale);
                        }
                        Ok(Report::Stats(values)) => {
                            self.counters = Counters::from_values(&values);
                            self.asked = false;
                        }
                        Ok(Report::Gather) => heard.gather = true,
                        Ok(Report::Answered {
                            ticket,
                            status,
                            body,
                        }) => heard.answers.push((ticket, status, body)),
                        Ok(Report::Unfit(why)) => heard.unfit = Some(why),
                        Ok(Report::Certificates(outcome)) => heard.certificates = Some(outcome),
                        Err(_) => return false,
                    }
                    self.input.drain(..length);
                }
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::numbers::{Numbers, ProcessNumbers, Whose};

    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(ours), theirs)
    }

    #[test]
    fn a_report_is_heard_however_it_is_cut() {
        let (mut link, mut reactor) = pair();
        link.ask();
        assert!(link.owes_answer());
        let counters = Counters {
            connections: 3,
            ..Counters::default()
        };
        let bytes = [
            Report::Ready.encode(),
            Report::Stats(counters.values()).encode(),
        ]
        .concat();
        let mut ready = 0;
        for byte in bytes {
            reactor.write_all(&[byte]).unwrap();
            ready += u32::from(link.read().ready);
        }
        assert_eq!((ready, link.counters.connections), (1, 3));
        assert!(!link.owes_answer());
    }

    #[test]
    fn a_second_question_waits_for_the_first_answer() {
        let (mut link, mut reactor) = pair();
        link.ask();
        link.ask();
        let mut buffer = [0; 64];
        assert_eq!(
            reactor.read(&mut buffer).unwrap(),
            Order::Ask.encode().len()
        );
    }

    #[test]
    fn an_order_longer_than_the_pair_takes_arrives_whole_or_not_at_all() {
        let (mut link, mut reactor) = pair();
        let process = ProcessNumbers {
            whose: Whose::Master,
            up: true,
            restarts: 0,
            memory_bytes: None,
            cpu_ms: None,
            counters: vec![7; 200_000],
        };
        let long = Order::Gathered(Numbers {
            processes: vec![process],
            ..Numbers::default()
        });
        let expected = long.encode();
        assert!(link.send(&long));
        assert!(!link.send(&long), "there is no room for two");
        link.stop();
        let mut heard = Vec::new();
        let mut buffer = [0; 64 * 1024];
        while heard.len() < expected.len() + Order::Stop.encode().len() {
            link.flush();
            let count = reactor.read(&mut buffer).unwrap();
            heard.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(heard, [expected, Order::Stop.encode()].concat());
    }

    #[test]
    fn an_end_and_nonsense_are_both_a_loss_told_once() {
        let (mut link, reactor) = pair();
        drop(reactor);
        assert!(link.read().lost);
        assert!(!link.read().lost);
        let (mut link, mut reactor) = pair();
        reactor.write_all(&[255; 8]).unwrap();
        assert!(link.read().lost);
    }
}
