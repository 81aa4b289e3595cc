//! The master's end of the pair to one reactor: orders down, reports up. Does not know what the
//! master makes of a report. Invariant: at most one question is open, so a reactor that does not
//! answer is not buried in questions.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::UnixStream;

use crate::base::counters::Counters;
use crate::wire::bus_codec::{Extent, measure};
use crate::wire::control::{Order, Report};

/// One report. Counters are a few hundred bytes; more is nonsense.
const REPORT_BYTES_MAX: usize = 64 * 1024;

/// What reading brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// It reported that it serves.
    pub ready: bool,
    /// The other end closed, or what it says makes no sense.
    pub lost: bool,
    /// It has read the certificates anew, or could not.
    pub certificates: Option<Result<(), String>>,
}

#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    input: Vec<u8>,
    lost: bool,
    asked: bool,
    /// The latest numbers; zeros before the first.
    pub counters: Counters,
}

impl Link {
    pub fn new(stream: UnixStream) -> Link {
        Link {
            stream,
            input: Vec::new(),
            lost: false,
            asked: false,
            counters: Counters::default(),
        }
    }

    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Asks for numbers, unless an earlier question is still open.
    pub fn ask(&mut self) {
        if !self.asked && !self.lost {
            self.asked = self.send(Order::Ask);
        }
    }

    /// Whether a question is open.
    pub fn owes_answer(&self) -> bool {
        self.asked && !self.lost
    }

    pub fn stop(&mut self) {
        self.send(Order::Stop);
    }

    /// Has it read the certificates anew; `Heard::certificates` tells how that went.
    pub fn read_certificates(&mut self) {
        self.send(Order::ReadCertificates);
    }

    /// A pair that takes not even five bytes belongs to a reactor that reads nothing: it shows as
    /// busy, and is killed when it has to stop.
    fn send(&mut self, order: Order) -> bool {
        let frame = order.encode();
        matches!(self.stream.write(&frame), Ok(count) if count == frame.len())
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
        let mut buffer = [0; 4096];
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
                    match Report::decode(&self.input[..length]) {
                        Ok(Report::Ready) => heard.ready = true,
                        Ok(Report::Stats(values)) => {
                            self.counters = Counters::from_values(&values);
                            self.asked = false;
                        }
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
