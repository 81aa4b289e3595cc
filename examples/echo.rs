//! Lines of text come back, with a service that is a type: `nc 127.0.0.1 8082` shows it. A client
//! that writes and never reads is not read from either, until it has caught up.

use lineman::{Close, Connection, Message, Server, Service};

#[derive(Default)]
struct Echo {
    clients: u32,
}

impl Service for Echo {
    fn connect(&mut self, conn: &mut Connection<'_>) {
        self.clients += 1;
        let greeting = format!("{} here, with you", self.clients);
        conn.send(&greeting);
    }

    fn message(&mut self, conn: &mut Connection<'_>, message: Message<'_>) {
        match message {
            Message::Text("quit") => conn.close(),
            said => conn.send(said),
        }
    }

    fn buffer_full(&mut self, conn: &mut Connection<'_>) {
        conn.pause();
    }

    fn buffer_drained(&mut self, conn: &mut Connection<'_>) {
        conn.resume();
    }

    fn close(&mut self, conn: &mut Connection<'_>, close: &Close) {
        self.clients -= 1;
        log::info!("{:?} left: {close:?}", conn.remote_address());
    }
}

fn main() -> std::process::ExitCode {
    Server::new()
        .listen("text://127.0.0.1:8082", Echo::default)
        .run()
}
