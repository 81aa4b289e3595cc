//! A TCP proxy: every client gets a connection of its own to the server in `UPSTREAM`, and neither
//! side is read from faster than the other takes it.

use std::collections::BTreeMap;

use lineman::{
    Close, ConnId, Connection, Listen, Message, Remote, Server, Service, Target, Worker,
};

struct Proxy {
    upstream: Target,
    /// Clients whose upstream is being dialled.
    waiting: BTreeMap<Remote, ConnId>,
    /// The other end of each connection.
    others: BTreeMap<ConnId, ConnId>,
}

impl Proxy {
    fn with_other(&self, conn: &mut Connection<'_>, act: impl FnOnce(&mut Connection<'_>)) {
        let other = self.others.get(&conn.id());
        if let Some(mut other) = other.and_then(|other| conn.worker().connection(*other)) {
            act(&mut other);
        }
    }
}

impl Service for Proxy {
    fn connect(&mut self, conn: &mut Connection<'_>) {
        let Some(remote) = conn.remote() else {
            conn.pause();
            let remote = conn.worker().connect(&self.upstream);
            self.waiting.insert(remote, conn.id());
            return;
        };
        let client = self.waiting.remove(&remote);
        let id = conn.id();
        match client.and_then(|client| conn.worker().connection(client)) {
            Some(mut client) => {
                self.others.insert(id, client.id());
                self.others.insert(client.id(), id);
                client.resume();
            }
            None => conn.close(),
        }
    }

    fn message(&mut self, conn: &mut Connection<'_>, message: Message<'_>) {
        self.with_other(conn, |other| other.send(message));
    }

    fn buffer_full(&mut self, conn: &mut Connection<'_>) {
        self.with_other(conn, |source| source.pause());
    }

    fn buffer_drained(&mut self, conn: &mut Connection<'_>) {
        self.with_other(conn, |source| source.resume());
    }

    fn close(&mut self, conn: &mut Connection<'_>, _close: &Close) {
        self.with_other(conn, |other| other.close());
        self.others.remove(&conn.id());
    }

    fn unreached(&mut self, worker: &mut Worker<'_>, remote: Remote, why: &str) {
        log::warn!("no upstream: {why}");
        let client = self.waiting.remove(&remote);
        if let Some(mut client) = client.and_then(|client| worker.connection(client)) {
            client.close();
        }
    }
}

fn main() -> std::process::ExitCode {
    let upstream = std::env::var("UPSTREAM").unwrap_or_else(|_| "tcp://127.0.0.1:80".into());
    let upstream = match Target::parse(&upstream) {
        Ok(upstream) => upstream,
        Err(why) => {
            eprintln!("UPSTREAM: {why}");
            return std::process::ExitCode::from(6);
        }
    };
    Server::new()
        .listen(Listen::on("tcp://127.0.0.1:8085"), move || Proxy {
            upstream: upstream.clone(),
            waiting: BTreeMap::new(),
            others: BTreeMap::new(),
        })
        .run()
}
