//! The worker's connections: what each speaks, what it sent that was not understood yet, and when
//! it is next to be looked at.

use std::net::{IpAddr, SocketAddr};

use crate::app::handler::Handler;
use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::base::quota::Quota;
use crate::session::Session;

/// What is told of a connection in a list. One million of them cost 48 MB, so it stays small.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    pub since: Moment,
    pub bytes_in: u64,
    peer: Option<IpAddr>,
    port: u16,
    /// The place of its listener in the configuration. Means nothing when it was dialled.
    pub listener: u16,
}

impl Facts {
    pub fn new(listener: usize, peer: Option<SocketAddr>, now: Now) -> Facts {
        Facts {
            since: now.moment,
            bytes_in: 0,
            peer: peer.map(|peer| peer.ip()),
            port: peer.map_or(0, |peer| peer.port()),
            listener: listener as u16,
        }
    }

    pub fn dialled(now: Now) -> Facts {
        Facts::new(0, None, now)
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.map(|ip| SocketAddr::new(ip, self.port))
    }
}

/// One connection.
pub struct Seat {
    generation: u32,
    /// Of the listener it came through, or of the application that dialled it.
    pub handler: Handler,
    /// An end was decided; what still arrives is ignored.
    pub ended: bool,
    /// The reason of its end was counted.
    pub counted: bool,
    /// The application asked not to be sent what arrives.
    pub paused: bool,
    /// It used up what it may send for now: its input waits.
    pub held_back: bool,
    /// The peer sends nothing more; told once what was held back has been taken up.
    pub hung_up: bool,
    /// The application was told of the connection and is to be told of its end.
    pub known: bool,
    /// Bytes that arrived and were not understood yet.
    pub leftover: Vec<u8>,
    /// How fast it may send; `None` without a limit. Apart, because most servers set none.
    pub pace: Option<Box<Quota>>,
    /// When the wheel will next fire for it.
    pub armed: Option<Moment>,
    pub session: Session,
    pub facts: Facts,
}

impl Seat {
    /// Whether the next message has to wait.
    pub fn hold_back(&mut self, now: Now) -> bool {
        let pace = self.pace.as_deref_mut();
        self.held_back = pace.is_some_and(|pace| !pace.is_ready(now.moment));
        self.held_back
    }

    /// When that is over, while it lasts.
    pub fn held_until(&self) -> Option<Moment> {
        let pace = self.pace.as_ref().filter(|_| self.held_back);
        pace.map(|pace| pace.ready_at())
    }

    /// A message of it was taken up.
    pub fn spend(&mut self, now: Now) {
        if let Some(pace) = &mut self.pace {
            pace.take(now.moment);
        }
    }
}

/// By slot.
#[derive(Default)]
pub struct Seats {
    seats: Vec<Option<Seat>>,
    taken: usize,
}

impl Seats {
    pub fn open(&mut self, conn: ConnId, handler: Handler, session: Session) {
        let slot = conn.slot as usize;
        if self.seats.len() <= slot {
            self.seats.resize_with(slot + 1, || None);
        }
        self.seats[slot] = Some(Seat {
            generation: conn.generation,
            handler,
            ended: false,
            counted: false,
            paused: false,
            held_back: false,
            hung_up: false,
            known: false,
            leftover: Vec::new(),
            pace: None,
            armed: None,
            session,
            facts: Facts::default(),
        });
        self.taken += 1;
    }

    pub fn close(&mut self, conn: ConnId) {
        if self.get(conn).is_some() {
            self.seats[conn.slot as usize] = None;
            self.taken -= 1;
        }
    }

    pub fn get(&self, conn: ConnId) -> Option<&Seat> {
        let seat = self.seats.get(conn.slot as usize)?.as_ref()?;
        (seat.generation == conn.generation).then_some(seat)
    }

    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(conn.slot as usize)?.as_mut()?;
        (seat.generation == conn.generation).then_some(seat)
    }

    /// The seat, unless its end was decided.
    pub fn live(&mut self, conn: ConnId) -> Option<&mut Seat> {
        self.get_mut(conn).filter(|seat| !seat.ended)
    }

    /// Ids of everything that is open.
    pub fn ids(&self) -> Vec<ConnId> {
        let seats = self.seats.iter().enumerate();
        seats
            .filter_map(|(slot, seat)| {
                let seat = seat.as_ref()?;
                Some(ConnId::new(slot as u32, seat.generation))
            })
            .collect()
    }

    pub fn count(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_a_connection_stay_small() {
        assert!(size_of::<Facts>() <= 48, "{}", size_of::<Facts>());
    }
}
