//! Several addresses of one name: who is tried when, and who is taken.

use super::*;
use mio::{Events, Poll};
use socket2::{Domain, Socket, Type};

/// How dialling a target with these addresses ends; time passes as fast as it can be waited for.
fn end(addresses: &[SocketAddr]) -> Outcome {
    let mut poll = Poll::new().expect("a poll");
    let mut dialler = Dialler::default();
    let mut buffers = Buffers::new(1024);
    let mut now = Moment::default();
    let registry = poll.registry().try_clone().expect("a registry");
    let dial = DialId(1);
    let target = Target::parse("tcp://127.0.0.1:1").expect("a URL");
    let entry = Dial {
        deadline: now + target.connect_within(),
        due: now + target.connect_within(),
        target,
        tls: None,
        wanted: None,
        addresses: VecDeque::new(),
        attempts: Vec::new(),
    };
    dialler.due.insert((entry.due, dial));
    dialler.dials.insert(dial, entry);
    dialler.try_all(dial, addresses.iter().copied(), now, &registry);
    let mut events = Events::with_capacity(8);
    loop {
        dialler.turn(now, &registry, &mut buffers);
        if let Some((_, outcome)) = dialler.next() {
            assert!(dialler.attempts.is_empty() && dialler.due.is_empty());
            return outcome;
        }
        let due = dialler.deadline().expect("it is bounded");
        let wait = Duration::from_millis(20);
        poll.poll(&mut events, Some(wait)).expect("a wait");
        for event in &events {
            dialler.wake(ConnId::from_u64(event.token().0 as u64));
        }
        if events.is_empty() {
            now = now.max(due);
        }
    }
}

fn open() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn closed() -> SocketAddr {
    open().1
}

/// A listener whose queue is full: whoever comes gets no answer.
fn silent() -> (Vec<Socket>, SocketAddr) {
    let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let listener = tcp();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).expect("a port");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().expect("an address");
    let mut held = vec![listener];
    for _ in 0..8 {
        let socket = tcp();
        socket.set_nonblocking(true).expect("a flag");
        // It is under way, which is an error to the library.
        let _ = socket.connect(&address);
        held.push(socket);
    }
    (held, address.as_socket().expect("an address"))
}

#[test]
fn the_first_address_that_answers_is_taken_and_the_others_are_let_go() {
    let ((_listener, good), (_held, silent)) = (open(), silent());
    for addresses in [
        &[good][..],
        &[closed(), good],
        &[silent, good],
        &[silent, closed(), silent, good, closed()],
        &[good, silent],
    ] {
        let outcome = end(addresses);
        assert!(matches!(outcome, Outcome::Reached { .. }), "{addresses:?}");
    }
}

#[test]
fn without_an_address_that_answers_the_last_refusal_or_the_silence_is_told() {
    let ((_held, silent), first, last) = (silent(), closed(), closed());
    let why = |addresses: &[SocketAddr]| match end(addresses) {
        Outcome::Failed(why) => why,
        Outcome::Reached { .. } => panic!("nobody listens"),
    };
    assert_eq!(why(&[first, last]), format!("{last}: Connection refused"));
    assert_eq!(why(&[]), "its name has no address");
    let silence = "no answer from 127.0.0.1:1 within 10s";
    assert_eq!(why(&[silent, last]), silence);
}
