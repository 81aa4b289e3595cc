//! The worker's connections: what each speaks, where its client is, what it sent that was not
//! understood yet, and when it is next to be looked at.

use std::net::{IpAddr, SocketAddr};

use crate::app::handler::Handler;
use crate::base::by_slot::BySlot;
use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::base::quota::Quota;
use crate::node::worker::{Forwarding, Listener};
use crate::session::Session;
use crate::wire::http::Request;

/// What is known of a connection. One million of them cost 48 MB, so it stays small.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub since: Moment,
    pub bytes_in: u64,
    /// The other end of the socket.
    peer: Option<IpAddr>,
    port: u16,
    /// The place of its listener in the configuration. Means nothing when it was dialled.
    pub listener: u16,
    /// Only when there is a proxy.
    told: Option<Box<Told>>,
}

/// What proxies said about where a client is.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Of the connection, once.
    of_connection: Option<SocketAddr>,
    /// Of the latest request: a proxy may carry those of many clients over one connection.
    of_request: Option<SocketAddr>,
}

impl Facts {
    pub fn new(
        listener: usize,
        address: Option<SocketAddr>,
        peer: Option<SocketAddr>,
        now: Now,
    ) -> Facts {
        let told = (address != peer).then(|| {
            Box::new(Told {
                of_connection: address,
                of_request: None,
            })
        });
        Facts {
            since: now.moment,
            bytes_in: 0,
            peer: peer.map(|peer| peer.ip()),
            port: peer.map_or(0, |peer| peer.port()),
            listener: listener as u16,
            told,
        }
    }

    pub fn dialled(now: Now) -> Facts {
        Facts::new(0, None, None, now)
    }

    /// The other end of the socket; `None` through a Unix socket.
    fn peer(&self) -> Option<SocketAddr> {
        self.peer.map(|ip| SocketAddr::new(ip, self.port))
    }

    /// Whose connection it is, by the socket or by a PROXY header.
    fn connected(&self) -> Option<SocketAddr> {
        let told = self.told.as_ref().and_then(|told| told.of_connection);
        told.or(self.peer())
    }

    /// Where the client is, as far as is known. Port 0: a proxy did not tell the port.
    pub fn address(&self) -> Option<SocketAddr> {
        let told = self.told.as_ref().and_then(|told| told.of_request);
        told.or_else(|| self.connected())
    }

    /// Its listener's place in the configuration, and `address`.
    pub fn place(&self) -> (usize, Option<SocketAddr>) {
        (self.listener.into(), self.address())
    }

    /// The proxy, if `address` is what one said: `Some(None)` through a Unix socket.
    pub fn via(&self) -> Option<Option<SocketAddr>> {
        (self.address() != self.peer()).then(|| self.peer())
    }

    /// Takes in what a request says about where it comes from, if it is from somebody who may say.
    /// Each of `listeners` has its own rule for that. The `place`, if it is another now.
    pub fn hear(
        &mut self,
        request: &Request<'_>,
        listeners: &[Listener],
    ) -> Option<(usize, Option<SocketAddr>)> {
        let listener = listeners.get(usize::from(self.listener));
        let Forwarding { header, trusted } = listener?.forwarding.as_ref()?;
        let before = self.address();
        let connected = self.connected().map(|address| address.ip());
        let said = match trusted.contains(connected) {
            true => header.client(request, trusted),
            false => None,
        };
        if said.is_some() || self.told.is_some() {
            self.told.get_or_insert_default().of_request = said;
        }
        (self.address() != before).then(|| self.place())
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
    /// The application asked not to be told what arrives.
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
    /// Whether what it sends is not taken up for now.
    pub fn waits(&self) -> bool {
        self.held_back || self.paused
    }

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
    seats: BySlot<Option<Seat>>,
    taken: usize,
}

impl Seats {
    pub fn open(&mut self, conn: ConnId, handler: Handler, session: Session) {
        *self.seats.reach(conn) = Some(Seat {
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
            *self.seats.reach(conn) = None;
            self.taken -= 1;
        }
    }

    pub fn get(&self, conn: ConnId) -> Option<&Seat> {
        let seat = self.seats.get(conn)?.as_ref()?;
        (seat.generation == conn.generation).then_some(seat)
    }

    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(conn)?.as_mut()?;
        (seat.generation == conn.generation).then_some(seat)
    }

    /// The seat, unless its end was decided.
    pub fn live(&mut self, conn: ConnId) -> Option<&mut Seat> {
        self.get_mut(conn).filter(|seat| !seat.ended)
    }

    /// Ids of everything that is open. Those without sockets come first: what is done to all
    /// reaches them while those that carry their words are still there.
    pub fn ids(&self) -> Vec<ConnId> {
        let seats = self.seats.iter();
        seats
            .filter_map(|(slot, seat)| Some(ConnId::new(slot, seat.as_ref()?.generation)))
            .collect()
    }

    pub fn count(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::networks::{Network, Networks};
    use crate::wire::forwarded::ForwardingHeader;
    use crate::wire::protocol::Protocol;

    #[test]
    fn the_facts_of_a_connection_stay_small() {
        assert!(size_of::<Facts>() <= 48, "{}", size_of::<Facts>());
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Where the client is after a request with this header.
    fn heard(facts: &mut Facts, value: &str) -> String {
        let network = Network::parse("10.0.0.0/8").expect("a network");
        let listener = Listener {
            protocol: Protocol::Http,
            handler: Handler::Echo,
            forwarding: Some(Forwarding {
                header: ForwardingHeader::XForwardedFor,
                trusted: Networks::new(vec![network], true),
            }),
        };
        let lines = format!("X-Forwarded-For: {value}\r\n");
        let request = Request {
            method: "GET",
            target: "/",
            body: b"",
            lines: lines.as_bytes(),
            websocket: false,
        };
        facts.hear(&request, &[listener]);
        facts.address().map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn each_request_of_a_trusted_proxy_says_anew_whose_it_is() {
        let proxy = Some(address("10.0.0.1:5"));
        let mut facts = Facts::new(0, proxy, proxy, Now::default());
        assert_eq!(facts.via(), None);
        assert_eq!(heard(&mut facts, "203.0.113.9"), "203.0.113.9:0");
        assert_eq!(facts.via(), Some(proxy));
        assert_eq!(heard(&mut facts, "203.0.113.7"), "203.0.113.7:0");
        assert_eq!(heard(&mut facts, ""), "10.0.0.1:5");
        assert_eq!(facts.via(), None);
        let mut local = Facts::new(0, None, None, Now::default());
        assert_eq!(heard(&mut local, "203.0.113.9"), "203.0.113.9:0");
        assert_eq!(local.via(), Some(None));
    }

    #[test]
    fn who_is_not_trusted_says_nothing_though_a_trusted_proxy_passes_it_on() {
        let client = Some(address("203.0.113.9:4"));
        let mut direct = Facts::new(0, client, client, Now::default());
        assert_eq!(heard(&mut direct, "1.1.1.1"), "203.0.113.9:4");
        // By a PROXY header, which says nothing of the request.
        let mut passed_on = Facts::new(0, client, None, Now::default());
        assert_eq!(heard(&mut passed_on, "1.1.1.1"), "203.0.113.9:4");
        let inner = Some(address("10.0.0.2:7"));
        let mut twice = Facts::new(0, inner, None, Now::default());
        assert_eq!(heard(&mut twice, "203.0.113.9"), "203.0.113.9:0");
        assert_eq!(heard(&mut twice, "nonsense"), "10.0.0.2:7");
    }
}
