//! Answers whose body is a file: which pieces are asked for, and when. Bounds: one piece waits for a
//! connection, and only once it has taken everything before; so many pieces are read in one turn,
//! the rest in the next, so that a fast reader does not keep the others waiting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::close::Close;
use crate::base::files::{FileFacts, FilePart, NoFile, PIECE_BYTES};
use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::node::Output;
use crate::node::worker::Worker;
use crate::session::Session;
use crate::wire::http::Response;

/// One MiB.
const PIECES_PER_TURN: usize = 16;

/// See the file's head.
#[derive(Default)]
pub struct Sending {
    /// Not told to the driver yet.
    wanted: BTreeMap<ConnId, String>,
    /// Whose answer may come from a file that is open.
    open: BTreeSet<ConnId>,
    /// Who gets the next piece, and where it begins.
    queue: VecDeque<(ConnId, u64)>,
    /// Whose piece is being read, and where the next one begins.
    reading: Option<(ConnId, u64)>,
    /// Pieces read in the turn of that time.
    turn: (Moment, usize),
    /// Some could be read at once, in the next turn.
    pub deadline: Option<Moment>,
}

impl Worker {
    pub(super) fn open_file(&mut self, conn: ConnId, path: String) {
        self.sending.wanted.insert(conn, path);
        self.outputs.push_back(Output::OpenFile(conn));
    }

    /// The listener and the path, once.
    pub(super) fn wanted_file(&mut self, conn: ConnId) -> Option<(usize, String)> {
        let path = self.sending.wanted.remove(&conn)?;
        let seat = self.seats.live(conn)?;
        Some((usize::from(seat.facts.listener), path))
    }

    pub(super) fn opened_file(&mut self, conn: ConnId, file: Result<FileFacts, NoFile>, now: Now) {
        if file.is_ok() {
            self.sending.open.insert(conn);
        }
        if let Some(seat) = self.seats.get(conn).filter(|seat| seat.known) {
            let application = self.handlers.of(seat.handler);
            let file = file.as_ref().map_err(|why| *why);
            application.file_opened(conn, file, &mut self.shared.cx(now));
        }
        self.carry_out(now);
        self.arm(conn);
    }

    /// An answer was given: its file is to be read, or not needed.
    pub(super) fn settle_file(&mut self, conn: ConnId, response: &Response, streams: bool) {
        match response.file.filter(|_| streams) {
            Some(part) => self.sending.queue.push_back((conn, part.offset)),
            None => self.close_file(conn),
        }
    }

    fn close_file(&mut self, conn: ConnId) {
        if self.sending.open.remove(&conn) {
            self.outputs.push_back(Output::CloseFile(conn));
        }
    }

    /// The next piece to be read, for a connection that took all it was given.
    pub(super) fn next_piece(&mut self, now: Now) -> Option<Output> {
        if self.sending.turn.0 != now.moment {
            self.sending.turn = (now.moment, 0);
        }
        self.sending.deadline = None;
        for _ in 0..self.sending.queue.len() {
            let (conn, offset) = self.sending.queue.pop_front()?;
            let left = self.left_to_send(conn);
            if left == 0 {
                continue;
            }
            if self.shared.outgoing.lines.waiting(conn) > 0 {
                self.sending.queue.push_back((conn, offset));
                continue;
            }
            if self.sending.turn.1 >= PIECES_PER_TURN {
                self.sending.queue.push_front((conn, offset));
                self.sending.deadline = Some(now.moment);
                return None;
            }
            self.sending.turn.1 += 1;
            let length = left.min(PIECE_BYTES);
            self.sending.reading = Some((conn, offset + length));
            return Some(Output::ReadFile(conn, FilePart { offset, length }));
        }
        None
    }

    /// Zero for those who are gone or going.
    fn left_to_send(&mut self, conn: ConnId) -> u64 {
        match self.seats.live(conn).map(|seat| &seat.session) {
            Some(Session::Http(http)) => http.owes(),
            _ => 0,
        }
    }

    pub(super) fn read_file(&mut self, conn: ConnId, bytes: Option<&[u8]>, now: Now) {
        let next = self.sending.reading.take();
        let Some(bytes) = bytes else {
            // Less than was announced is sent, and the end tells so.
            return self.end(conn, Close::Unsendable, now);
        };
        let Some((http, out)) = self.http(conn) else {
            return;
        };
        let after = http.send(bytes, out, now);
        match (http.owes(), next) {
            (0, _) => self.close_file(conn),
            (_, Some(next)) => self.sending.queue.push_back(next),
            (_, None) => {}
        }
        self.answered(conn, after, now);
    }

    /// In another turn, pieces may be read again.
    pub(super) fn begin_pieces(&mut self, now: Now) {
        self.sending.turn = (now.moment, 0);
        self.sending.deadline = None;
    }

    /// The connection is gone, and the driver lets go of its file by itself.
    pub(super) fn forget_file(&mut self, conn: ConnId) {
        self.sending.wanted.remove(&conn);
        self.sending.open.remove(&conn);
    }
}
