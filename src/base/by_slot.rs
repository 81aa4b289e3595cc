//! A table by the slot of a connection. Connections without a socket have slots of their own, far
//! above those of sockets; both kinds are numbered from zero, so both have a plain vector. Does not
//! know which slots are taken.

use crate::base::ids::ConnId;

/// One `T` for each slot, made when it is first reached for.
#[derive(Debug, Default)]
pub struct BySlot<T> {
    sockets: Vec<T>,
    socketless: Vec<T>,
}

impl<T: Default> BySlot<T> {
    pub fn get(&self, conn: ConnId) -> Option<&T> {
        let (socketless, index) = place(conn);
        match socketless {
            true => self.socketless.get(index),
            false => self.sockets.get(index),
        }
    }

    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        let (socketless, index) = place(conn);
        match socketless {
            true => self.socketless.get_mut(index),
            false => self.sockets.get_mut(index),
        }
    }

    /// The slot, for which room is made.
    pub fn reach(&mut self, conn: ConnId) -> &mut T {
        let (socketless, index) = place(conn);
        let table = match socketless {
            true => &mut self.socketless,
            false => &mut self.sockets,
        };
        if table.len() <= index {
            table.resize_with(index + 1, T::default);
        }
        &mut table[index]
    }

    /// Those of sockets.
    pub fn sockets(&self) -> impl Iterator<Item = &T> {
        self.sockets.iter()
    }

    /// All, with their slots; those without sockets first.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let socketless = (ConnId::SOCKETLESS..).zip(&self.socketless);
        socketless.chain((0..).zip(&self.sockets))
    }
}

fn place(conn: ConnId) -> (bool, usize) {
    let index = conn.slot & !ConnId::SOCKETLESS;
    (conn.is_socketless(), index as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_slots_are_told_apart_and_dense() {
        let mut table: BySlot<u32> = BySlot::default();
        let (socket, session) = (ConnId::new(1, 0), ConnId::socketless(1, 0));
        assert_eq!((table.get(socket), table.get(session)), (None, None));
        *table.reach(socket) = 7;
        *table.reach(session) = 8;
        assert_eq!(
            (table.get(socket), table.get(session)),
            (Some(&7), Some(&8))
        );
        assert_eq!(table.sockets().count(), 2);
        let all: Vec<(u32, u32)> = table.iter().map(|(slot, it)| (slot, *it)).collect();
        let high = ConnId::SOCKETLESS;
        assert_eq!(all, [(high, 0), (high + 1, 8), (0, 0), (1, 7)]);
    }
}
