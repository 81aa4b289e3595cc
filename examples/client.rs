//! A client that stays connected: it joins the chat room at `ROOM` (`ws://127.0.0.1:8080/`, which is
//! where the example `chat` is), says a word every second, logs what it hears, and comes back
//! whenever the room does.

use std::time::Duration;

use lineman::{Close, Connection, Message, Remote, Server, Service, Target, Timer, Worker};

struct Member {
    room: Target,
    joined: Option<Remote>,
}

impl Service for Member {
    fn start(&mut self, worker: &mut Worker<'_>) {
        self.joined = Some(worker.keep_connected(&self.room));
        worker.every(Duration::from_secs(1));
    }

    fn connect(&mut self, conn: &mut Connection<'_>) {
        conn.send("hello, I am a program");
    }

    fn message(&mut self, _conn: &mut Connection<'_>, message: Message<'_>) {
        if let Message::Text(text) = message {
            log::info!("heard: {text}");
        }
    }

    fn timer(&mut self, worker: &mut Worker<'_>, _timer: Timer) {
        if let Some(mut room) = self.joined.and_then(|room| worker.remote(room)) {
            room.send("still on the line");
        }
    }

    fn close(&mut self, _conn: &mut Connection<'_>, close: &Close) {
        log::info!("the room is gone: {close:?}");
    }

    fn unreached(&mut self, _worker: &mut Worker<'_>, _remote: Remote, why: &str) {
        log::info!("no room yet: {why}");
    }
}

fn main() -> std::process::ExitCode {
    let room = std::env::var("ROOM").unwrap_or_else(|_| "ws://127.0.0.1:8080/".into());
    let room = match Target::parse(&room) {
        Ok(room) => room,
        Err(why) => {
            eprintln!("ROOM: {why}");
            return std::process::ExitCode::from(6);
        }
    };
    Server::new()
        .settings("workers = 1")
        .handler("client", move || Member {
            room: room.clone(),
            joined: None,
        })
        .run()
}
