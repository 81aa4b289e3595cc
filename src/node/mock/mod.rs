//! A push provider that is none: takes requests by HTTP/1.1 and HTTP/2, has each heard by a `Mock`, and
//! does what that says, at its time. Owns the connections and what is to be said later. Which answer is
//! right, it does not know.
//!
//! HTTP/2 is what begins with its preface, over TLS or not. Invariant: of a connection that closed
//! nothing is left behind.

mod seat;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::bytes::{Inbox, Outbox};
use crate::base::counters::Counters;
use crate::base::ids::ConnId;
use crate::base::limits::Limits;
use crate::base::now::{Moment, Now};
use crate::mock::{Act, Asked, Caller, Heard, Mock};
use crate::node::lines::Lines;
use crate::node::{Ending, Node, Origin, Output, Peer};
use crate::session::http2::StreamKey;
use seat::{Ask, Seat};

/// What waits for one client.
const OUTBOX_BYTES: usize = 1024 * 1024;
/// The body of one request.
pub const BODY_BYTES: usize = 1024 * 1024;

/// Takes a line about each request; false when it has no room.
pub type Tell = Box<dyn FnMut(String) -> bool + Send>;

/// What a mock's node is made of.
pub struct MockOptions {
    pub mock: Mock,
    /// Requests of an HTTP/2 connection at a time.
    pub streams_max: u32,
    /// Clients have to sign in with one request before they may send many (Apple's way).
    pub start_with_one: bool,
    /// Head, body and times of HTTP/1.1.
    pub limits: Limits,
    pub tell: Tell,
}

/// Which request of which connection: of HTTP/1.1 there is one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    conn: u64,
    stream: Option<StreamKey>,
}

/// See the file's head.
pub struct MockNode {
    options: MockOptions,
    lines: Lines,
    seats: BTreeMap<ConnId, Seat>,
    /// Connections that there were.
    connections: u64,
    /// What is to be done later: as many as requests under way.
    later: BTreeMap<(Moment, u64), (Place, Act, bool)>,
    /// The number of what was put off last.
    put_off: u64,
    /// The times of HTTP/1.1 connections.
    deadlines: BTreeSet<(Moment, ConnId)>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl MockNode {
    pub fn new(options: MockOptions) -> MockNode {
        MockNode {
            options,
            lines: Lines::new(usize::MAX),
            seats: BTreeMap::new(),
            connections: 0,
            later: BTreeMap::new(),
            put_off: 0,
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Goes on with a connection until it has nothing more to say.
    fn turn(&mut self, conn: ConnId, now: Now) {
        loop {
            let (Some(seat), Some(out)) = (self.seats.get_mut(&conn), self.lines.outbox(conn))
            else {
                return;
            };
            match seat.next(out, now, &self.options.limits) {
                Ask::Nothing => break,
                Ask::Request(stream, asked) => self.hear(conn, stream, &asked, now),
                Ask::Close => {
                    self.outputs.push_back(Output::Close(conn, Ending::Flushed));
                    break;
                }
            }
        }
        self.lines.touch(conn);
        self.note_deadline(conn);
    }

    fn hear(&mut self, conn: ConnId, stream: Option<StreamKey>, asked: &Asked, now: Now) {
        let Some(seat) = self.seats.get(&conn) else {
            return;
        };
        let caller = Caller {
            connection: seat.number,
            version: if stream.is_some() { 2 } else { 1 },
        };
        let Heard {
            act,
            delay,
            signed_in,
            line,
        } = self.options.mock.hear(caller, asked, now);
        if let Some(line) = line
            && !(self.options.tell)(line)
        {
            self.counters.log_lines_dropped += 1;
        }
        let place = Place {
            conn: conn.to_u64(),
            stream,
        };
        match delay.is_zero() {
            true => self.perform(place, act, signed_in, now),
            false => {
                self.put_off += 1;
                let due = (now.moment + delay, self.put_off);
                self.later.insert(due, (place, act, signed_in));
            }
        }
    }

    fn perform(&mut self, place: Place, act: Act, signed_in: bool, now: Now) {
        let conn = ConnId::from_u64(place.conn);
        let (Some(seat), Some(out)) = (self.seats.get_mut(&conn), self.lines.outbox(conn)) else {
            return;
        };
        if signed_in {
            seat.signed_in();
        }
        let ending = match (act, place.stream) {
            (Act::Silence, _) => None,
            (Act::Answer(reply, goaway), Some(key)) => {
                seat.answer_stream(key, &reply);
                if let Some(goaway) = goaway {
                    seat.go_away(goaway, seat.last_stream());
                }
                None
            }
            (Act::Answer(reply, goaway), None) => seat.answer(reply, goaway.is_some(), out, now),
            (Act::Reset(code), Some(key)) => {
                seat.reset(key, code);
                None
            }
            (Act::GoAway(goaway), Some(key)) => {
                seat.go_away(goaway, key.0.saturating_sub(2));
                None
            }
            (Act::Reset(_) | Act::GoAway(_) | Act::Cut, _) => Some(Ending::Cut),
        };
        self.outputs
            .extend(ending.map(|ending| Output::Close(conn, ending)));
    }

    /// Remembers when a connection is to be looked at, if nothing comes.
    fn note_deadline(&mut self, conn: ConnId) {
        let Some(seat) = self.seats.get_mut(&conn) else {
            return;
        };
        let deadline = seat.deadline(&self.options.limits);
        if deadline == seat.noted {
            return;
        }
        if let Some(noted) = std::mem::replace(&mut seat.noted, deadline) {
            self.deadlines.remove(&(noted, conn));
        }
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, conn)));
    }
}

impl Node for MockNode {
    fn opened(&mut self, conn: ConnId, _: Origin, now: Now) {
        self.connections += 1;
        self.lines.open(conn, OUTBOX_BYTES);
        let seat = Seat::new(
            self.connections,
            (self.options.streams_max, self.options.start_with_one),
            now,
        );
        self.seats.insert(conn, seat);
        self.note_deadline(conn);
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8], now: Now) {
        if let Some(seat) = self.seats.get_mut(&conn) {
            seat.received(&mut Inbox::new(bytes));
        }
        self.turn(conn, now);
    }

    fn hung_up(&mut self, conn: ConnId, now: Now) {
        match self.seats.get_mut(&conn).is_some_and(Seat::hung_up) {
            true => self.outputs.push_back(Output::Close(conn, Ending::Flushed)),
            false => self.turn(conn, now),
        }
    }

    fn closed(&mut self, conn: ConnId, _: Now) {
        self.lines.close(conn);
        if let Some(seat) = self.seats.remove(&conn) {
            self.options.mock.left(seat.number);
            if let Some(noted) = seat.noted {
                self.deadlines.remove(&(noted, conn));
            }
            let place = conn.to_u64();
            self.later.retain(|_, (it, _, _)| it.conn != place);
        }
    }

    fn unreachable(&mut self, _: Peer, _: &str, _: Now) {}

    fn certificates_read(&mut self, _: Result<(), String>) {}

    fn elapsed(&mut self, now: Now) {
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now.moment
        {
            let (place, act, signed_in) = entry.remove();
            self.perform(place, act, signed_in, now);
            self.turn(ConnId::from_u64(place.conn), now);
        }
        while let Some((due, conn)) = self.deadlines.first().copied()
            && due <= now.moment
        {
            self.deadlines.pop_first();
            let (Some(seat), Some(out)) = (self.seats.get_mut(&conn), self.lines.outbox(conn))
            else {
                continue;
            };
            seat.noted = None;
            if seat.elapsed(out, now, &self.options.limits) {
                self.outputs.push_back(Output::Close(conn, Ending::Flushed));
            }
            self.lines.touch(conn);
            self.note_deadline(conn);
        }
    }

    fn drained(&mut self, conn: ConnId, now: Now) {
        self.turn(conn, now);
    }

    fn wants_input(&self, conn: ConnId) -> bool {
        self.seats.get(&conn).is_some_and(Seat::wants_input)
    }

    fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        self.lines.outbox(conn)
    }

    fn poll_output(&mut self, _: Now) -> Option<Output> {
        if let Some(conn) = self.lines.next_prompt() {
            return Some(Output::Flush(conn));
        }
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Moment> {
        let later = self.later.first_key_value().map(|((due, _), _)| *due);
        let noted = self.deadlines.first().map(|(due, _)| *due);
        later.into_iter().chain(noted).min()
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

#[cfg(test)]
mod tests;
