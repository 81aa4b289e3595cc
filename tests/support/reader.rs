//! A client by lines that names the position it wants to go on from, and reads one message at a time.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::PATIENCE;

/// See the file's head.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut client = Client(BufReader::new(stream));
        client.send(&json!({"event": "pusher:connect", "data": {"app_key": "demo-key"}}));
        assert_eq!(client.next()["event"], "pusher:connection_established");
        client
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.0.get_mut(), "{message}").expect("it is open");
    }

    pub fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Subscribes, from this position on if there is one; the success.
    pub fn subscribe(&mut self, channel: &str, position: Option<&Value>) -> Value {
        let mut data = json!({"channel": channel});
        if let Some(position) = position {
            data["recover"] = json!({"epoch": position["epoch"], "offset": position["offset"]});
        }
        self.send(&json!({"event": "pusher:subscribe", "data": data}));
        let success = self.next();
        let name = "pusher_internal:subscription_succeeded";
        assert_eq!(success["event"], name, "{success}");
        success
    }
}
