//! The worker's connections: what each speaks, what it sent that was not understood yet, and when
//! it is next to be looked at.

use crate::app::handler::Handler;
use crate::base::ids::ConnId;
use crate::base::now::Moment;
use crate::session::Session;

/// One connection.
pub struct Seat {
    generation: u32,
    /// Of the listener it came through.
    pub handler: Handler,
    /// An end was decided; what still arrives is ignored.
    pub ended: bool,
    /// The application was told of the connection and is to be told of its end.
    pub known: bool,
    /// Bytes that arrived and were not understood yet.
    pub leftover: Vec<u8>,
    /// When the wheel will next fire for it.
    pub armed: Option<Moment>,
    pub session: Session,
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
            known: false,
            leftover: Vec::new(),
            armed: None,
            session,
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
