//! The outboxes of a node's connections, how messages for each have to be written, and which of
//! them have something new to write. It writes no message itself.
//!
//! Invariant: a line is on a list exactly when its flag for that list says so, and once. One that is
//! on both is written from the prompt list, and passed over on the other if nothing waits by then.

use std::collections::VecDeque;

use crate::base::by_slot::BySlot;
use crate::base::bytes::{Full, Outbox};
use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::wire::protocol::Protocol;

/// When something is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// In this turn.
    Prompt,
    /// When nothing prompt is left, some in each turn: a part of a fan-out to many.
    Bulk,
}

struct Line {
    generation: u32,
    /// On the list of that name.
    prompt: bool,
    /// The same.
    bulk: bool,
    /// More than `full_bytes` waited and not all of it was taken yet.
    full: bool,
    /// Something was left out because there was no room, and what waited then still does.
    lags: bool,
    protocol: Protocol,
    /// Where we are the client of a WebSocket: what its frames are masked with.
    masks: Option<Box<Dice>>,
    outbox: Outbox,
}

/// One line per connection, by slot.
#[derive(Default)]
pub struct Lines {
    lines: BySlot<Option<Line>>,
    prompt: VecDeque<ConnId>,
    bulk: VecDeque<ConnId>,
    /// From here on a line counts as full, long before its bound.
    full_bytes: usize,
    /// Became full since it was last asked; each stands here once.
    filled: Vec<ConnId>,
}

impl Lines {
    pub fn new(full_bytes: usize) -> Lines {
        Lines {
            full_bytes,
            ..Lines::default()
        }
    }

    /// The lines that became full since the last call.
    pub fn take_filled(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.filled)
    }

    /// Notes that the line was full and is empty now; whether that is so.
    pub fn take_drained(&mut self, conn: ConnId) -> bool {
        let line = self
            .line(conn)
            .filter(|line| line.full && line.outbox.is_empty());
        line.is_some_and(|line| std::mem::take(&mut line.full))
    }

    /// `bytes_max` bounds what waits for the peer.
    pub fn open(&mut self, conn: ConnId, bytes_max: usize) {
        *self.lines.reach(conn) = Some(Line {
            generation: conn.generation,
            prompt: false,
            bulk: false,
            full: false,
            lags: false,
            protocol: Protocol::default(),
            masks: None,
            outbox: Outbox::new(bytes_max),
        });
    }

    /// Messages for the connection are written so from now on; until then, as for WebSocket.
    pub fn speak(&mut self, conn: ConnId, protocol: Protocol) {
        if let Some(line) = self.line(conn) {
            line.protocol = protocol;
        }
    }

    /// Frames for the connection have to be masked from now on, each for itself. `masks` has to be
    /// unpredictable.
    pub fn mask(&mut self, conn: ConnId, masks: Dice) {
        if let Some(line) = self.line(conn) {
            line.protocol = Protocol::Masked;
            line.masks = Some(Box::new(masks));
        }
    }

    /// The key of the next frame for the connection, if it has to be masked.
    pub fn next_mask(&mut self, conn: ConnId) -> Option<[u8; 4]> {
        let masks = self.line(conn)?.masks.as_mut();
        masks.map(|masks| masks.next_mask())
    }

    /// How messages for the connection are written.
    pub fn protocol(&self, conn: ConnId) -> Protocol {
        self.peek(conn)
            .map_or(Protocol::default(), |line| line.protocol)
    }

    pub fn close(&mut self, conn: ConnId) {
        if self.line(conn).is_some() {
            *self.lines.reach(conn) = None;
        }
    }

    pub fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        self.line(conn).map(|line| &mut line.outbox)
    }

    /// Bytes waiting; zero for an unknown connection.
    pub fn waiting(&self, conn: ConnId) -> usize {
        self.peek(conn).map_or(0, |line| line.outbox.len())
    }

    /// Bytes the connection's socket has taken.
    pub fn written(&self, conn: ConnId) -> u64 {
        self.peek(conn).map_or(0, |line| line.outbox.written())
    }

    /// The same for all that are open. What a connection without a socket was handed was written
    /// by others.
    pub fn written_in_all(&self) -> u64 {
        self.lines
            .sockets()
            .flatten()
            .map(|line| line.outbox.written())
            .sum()
    }

    /// Bytes that wait on all that are open.
    pub fn waiting_in_all(&self) -> usize {
        self.lines
            .iter()
            .filter_map(|(_, line)| line.as_ref())
            .map(|line| line.outbox.len())
            .sum()
    }

    /// Queues by `push`, to be written in this turn; nothing happens on an unknown connection.
    pub fn push(
        &mut self,
        conn: ConnId,
        push: impl FnOnce(&mut Outbox) -> Result<(), Full>,
    ) -> Result<(), Full> {
        self.push_as(Urgency::Prompt, conn, push)
    }

    /// The same, to be written as soon as `urgency` says.
    pub fn push_as(
        &mut self,
        urgency: Urgency,
        conn: ConnId,
        push: impl FnOnce(&mut Outbox) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let Some(Some(line)) = self.lines.get_mut(conn) else {
            return Ok(());
        };
        if line.generation != conn.generation {
            return Ok(());
        }
        push(&mut line.outbox)?;
        if line.outbox.len() > self.full_bytes && !line.full {
            line.full = true;
            line.outbox.tell_when_empty();
            self.filled.push(conn);
        }
        match urgency {
            Urgency::Prompt if !line.prompt => {
                line.prompt = true;
                self.prompt.push_back(conn);
            }
            Urgency::Bulk if !line.prompt && !line.bulk => {
                line.bulk = true;
                self.bulk.push_back(conn);
            }
            Urgency::Prompt | Urgency::Bulk => {}
        }
        Ok(())
    }

    /// Whether a message of up to `count` bytes may go to a connection that gets all or, from the
    /// first for which there was no room, none until it has taken everything that waits.
    pub fn keeps_up(&mut self, conn: ConnId, count: usize) -> bool {
        let Some(line) = self.line(conn) else {
            return true;
        };
        let had_room = !line.lags || line.outbox.is_empty();
        line.lags = !(had_room && line.outbox.has_room(count));
        !line.lags
    }

    /// Puts the connection on the prompt list if it has bytes; for those who wrote into `outbox`.
    pub fn touch(&mut self, conn: ConnId) {
        if let Some(line) = self.line(conn)
            && !line.prompt
            && !line.outbox.is_empty()
        {
            line.prompt = true;
            self.prompt.push_back(conn);
        }
    }

    /// The next connection with something prompt to write, taken off the list.
    pub fn next_prompt(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.prompt.pop_front() {
            if let Some(line) = self.line(conn) {
                line.prompt = false;
                return Some(conn);
            }
        }
        None
    }

    /// The next connection that waits for its part of a fan-out, taken off the list.
    pub fn next_bulk(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.bulk.pop_front() {
            if let Some(line) = self.line(conn) {
                line.bulk = false;
                if !line.outbox.is_empty() {
                    return Some(conn);
                }
            }
        }
        None
    }

    /// Connections on that list, of which some may have got everything meanwhile.
    pub fn bulk(&self) -> usize {
        self.bulk.len()
    }

    fn peek(&self, conn: ConnId) -> Option<&Line> {
        let line = self.lines.get(conn)?.as_ref()?;
        (line.generation == conn.generation).then_some(line)
    }

    fn line(&mut self, conn: ConnId) -> Option<&mut Line> {
        let line = self.lines.get_mut(conn)?.as_mut()?;
        (line.generation == conn.generation).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_listed_once_until_it_is_looked_at() {
        let mut lines = Lines::new(100);
        let conn = ConnId::new(0, 5);
        lines.open(conn, 100);
        lines.push(conn, |out| out.push(b"a")).expect("room");
        lines.push(conn, |out| out.push(b"b")).expect("room");
        lines.touch(conn);
        assert_eq!(lines.next_prompt(), Some(conn));
        assert_eq!(lines.next_prompt(), None);
        assert_eq!(lines.waiting(conn), 2);
    }

    #[test]
    fn a_part_of_a_fan_out_waits_unless_something_prompt_takes_it_along() {
        let mut lines = Lines::new(100);
        let conns = [ConnId::new(0, 5), ConnId::new(1, 5), ConnId::new(2, 5)];
        for conn in conns {
            lines.open(conn, 100);
        }
        let fan_out = |lines: &mut Lines| {
            for conn in conns {
                lines
                    .push_as(Urgency::Bulk, conn, |out| out.push(b"all"))
                    .expect("room");
            }
        };
        fan_out(&mut lines);
        lines.push(conns[1], |out| out.push(b"you")).expect("room");
        assert_eq!(lines.next_prompt(), Some(conns[1]));
        assert_eq!(lines.next_prompt(), None);
        lines.outbox(conns[1]).expect("open").advance(6);
        assert_eq!(lines.next_bulk(), Some(conns[0]));
        // The second keeps its place for what comes later; the first has to stand behind.
        fan_out(&mut lines);
        assert_eq!(lines.bulk(), 3);
        assert_eq!(lines.next_bulk(), Some(conns[1]));
        lines.outbox(conns[2]).expect("open").advance(6);
        assert_eq!(lines.next_bulk(), Some(conns[0]), "the third got all");
        assert_eq!((lines.next_bulk(), lines.bulk()), (None, 0));
    }

    #[test]
    fn who_lags_gets_nothing_until_it_has_taken_everything() {
        let mut lines = Lines::new(100);
        let conn = ConnId::new(0, 1);
        lines.open(conn, 10);
        let take = |lines: &mut Lines, count| lines.outbox(conn).expect("open").advance(count);
        lines.push(conn, |out| out.push(b"12345678")).expect("room");
        assert!(lines.keeps_up(conn, 2));
        assert!(!lines.keeps_up(conn, 3));
        assert!(!lines.keeps_up(conn, 2), "what follows is left out too");
        take(&mut lines, 7);
        assert!(!lines.keeps_up(conn, 2), "one byte still waits");
        take(&mut lines, 1);
        assert!(lines.keeps_up(conn, 2));
        assert!(lines.keeps_up(ConnId::new(0, 2), 99), "nobody is there");
    }

    #[test]
    fn a_former_holder_of_the_slot_is_never_written_to() {
        let mut lines = Lines::new(100);
        lines.open(ConnId::new(0, 1), 100);
        lines.close(ConnId::new(0, 1));
        lines.open(ConnId::new(0, 2), 100);
        lines
            .push(ConnId::new(0, 1), |out| out.push(b"late"))
            .expect("ignored");
        assert_eq!(lines.waiting(ConnId::new(0, 2)), 0);
        lines.close(ConnId::new(0, 1));
        assert!(lines.outbox(ConnId::new(0, 2)).is_some());
    }
}
