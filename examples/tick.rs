//! A game world that moves twenty times a second: players say `left` or `right`, and every tick
//! sends the whole world to all players of this reactor. A cron expression resets the score.

use std::collections::BTreeMap;
use std::time::Duration;

use lineman::{Close, ConnId, Connection, Message, Server, Service, Timer, Worker};

const TICK: Duration = Duration::from_millis(50);

#[derive(Default)]
struct World {
    tick: u64,
    players: BTreeMap<ConnId, i32>,
    midnight: Option<Timer>,
}

impl Service for World {
    fn start(&mut self, worker: &mut Worker<'_>) {
        worker.every(TICK);
        self.midnight = worker.cron("0 0 * * *").ok();
    }

    fn connect(&mut self, conn: &mut Connection<'_>) {
        self.players.insert(conn.id(), 0);
    }

    fn message(&mut self, conn: &mut Connection<'_>, message: Message<'_>) {
        let step = match message {
            Message::Text("left") => -1,
            Message::Text("right") => 1,
            _ => return conn.close_with(4000, "left or right, please"),
        };
        *self.players.entry(conn.id()).or_default() += step;
    }

    fn close(&mut self, conn: &mut Connection<'_>, _close: &Close) {
        self.players.remove(&conn.id());
    }

    fn timer(&mut self, worker: &mut Worker<'_>, timer: Timer) {
        if self.midnight == Some(timer) {
            self.tick = 0;
            return;
        }
        self.tick += 1;
        let places: Vec<&i32> = self.players.values().collect();
        let world = format!("{{\"tick\":{},\"players\":{places:?}}}", self.tick);
        for id in worker.connections() {
            if let Some(mut conn) = worker.connection(id) {
                conn.send(&world);
            }
        }
    }
}

fn main() -> std::process::ExitCode {
    Server::new()
        .settings("workers = 1")
        .listen("websocket://127.0.0.1:8084", World::default)
        .run()
}
