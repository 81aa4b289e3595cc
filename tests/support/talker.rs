//! A client of lines that hears at any time, and the demo app's backend. Invariant: no wait is
//! without end.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::support::PATIENCE;

/// See the file's head.
pub struct Talker {
    stream: TcpStream,
    heard: Arc<Mutex<Vec<Value>>>,
    pub socket_id: String,
}

fn signature(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"demo-secret");
    let tag = hmac::sign(&key, text.as_bytes());
    format!("demo-key:{}", data_encoding::HEXLOWER.encode(tag.as_ref()))
}

impl Talker {
    /// Connects to a `text://` listener and introduces itself; `None` while nobody is there.
    pub fn try_connect(address: &str) -> Option<Talker> {
        let stream = TcpStream::connect(address).ok()?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(stream.try_clone().ok()?);
        let into = heard.clone();
        // It ends with the connection.
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    into.lock().expect("whole").push(event);
                }
            }
            into.lock().expect("whole").push(json!({"event": "end"}));
        });
        let mut talker = Talker {
            stream,
            heard,
            socket_id: String::new(),
        };
        talker.say(&json!({"event": "pusher:connect",
                           "data": {"app_key": "demo-key", "protocol": 7}}));
        let established = |event: &Value| event["event"] == "pusher:connection_established";
        let hello = talker.find_within(PATIENCE, established)?;
        let data: Value = serde_json::from_str(hello["data"].as_str()?).ok()?;
        talker.socket_id = data["socket_id"].as_str()?.to_string();
        Some(talker)
    }

    pub fn connect(address: &str) -> Talker {
        let began = Instant::now();
        loop {
            if let Some(talker) = Talker::try_connect(address) {
                return talker;
            }
            assert!(began.elapsed() < PATIENCE, "nobody at {address}");
        }
    }

    pub fn say(&mut self, message: &Value) {
        let _ = self.stream.write_all(format!("{message}\n").as_bytes());
    }

    /// All that was heard.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().expect("whole").clone()
    }

    fn find_within(&self, time: Duration, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        let began = Instant::now();
        loop {
            if let Some(event) = self.heard().into_iter().find(|event| fits(event)) {
                return Some(event);
            }
            if began.elapsed() > time {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The first event that fits, whenever it came.
    pub fn find(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.find_within(PATIENCE, fits)
            .unwrap_or_else(|| panic!("{what} was not heard: {:#?}", self.heard()))
    }

    /// The first event of this name in a channel, its data read.
    pub fn event(&self, name: &str, channel: &str) -> Value {
        let fits = |event: &Value| event["event"] == name && event["channel"] == channel;
        data_of(&self.find(name, fits))
    }

    /// How often an event of this name came.
    pub fn count(&self, name: &str) -> usize {
        let heard = self.heard();
        heard.iter().filter(|event| event["event"] == name).count()
    }

    /// Subscribes; what the success says.
    pub fn subscribe(&mut self, channel: &str) -> Value {
        self.subscribe_with(json!({"channel": channel}))
    }

    fn subscribe_with(&mut self, data: Value) -> Value {
        let channel = data["channel"].as_str().expect("a channel").to_string();
        self.say(&json!({"event": "pusher:subscribe", "data": data}));
        self.event("pusher_internal:subscription_succeeded", &channel)
    }

    pub fn unsubscribe(&mut self, channel: &str) {
        self.say(&json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}));
    }

    /// Joins a presence channel; the ids of who is there, sorted.
    pub fn join(&mut self, channel: &str, user: &str) -> Vec<String> {
        let me = json!({"user_id": user}).to_string();
        let auth = signature(&format!("{}:{channel}:{me}", self.socket_id));
        let data = json!({"channel": channel, "auth": auth, "channel_data": me});
        let there = self.subscribe_with(data)["presence"]["ids"].clone();
        let mut ids: Vec<String> = serde_json::from_value(there).expect("a list of ids");
        ids.sort_unstable();
        ids
    }

    /// Subscribes to a private channel.
    pub fn enter(&mut self, channel: &str) {
        let auth = signature(&format!("{}:{channel}", self.socket_id));
        self.subscribe_with(json!({"channel": channel, "auth": auth}));
    }

    /// Signs in, with a watchlist.
    pub fn sign_in(&mut self, user: &str, watchlist: &[&str]) {
        let data = json!({"id": user, "watchlist": watchlist}).to_string();
        let auth = signature(&format!("{}::user::{data}", self.socket_id));
        self.say(&json!({"event": "pusher:signin",
                         "data": {"auth": auth, "user_data": data}}));
        let success = |event: &Value| event["event"] == "pusher:signin_success";
        self.find("the success of a sign-in", success);
    }

    /// Users of a presence channel as this client was told: at first, then one by one.
    pub fn present(&self, channel: &str) -> Vec<String> {
        let mut there: Vec<String> = Vec::new();
        for event in self.heard().iter().filter(|it| it["channel"] == channel) {
            let data = data_of(event);
            let id = || data["user_id"].as_str().expect("an id").to_string();
            match event["event"].as_str() {
                Some("pusher_internal:subscription_succeeded") => {
                    let ids = data["presence"]["ids"].clone();
                    there = serde_json::from_value(ids).expect("a list of ids");
                }
                Some("pusher_internal:member_added") => {
                    assert!(!there.contains(&id()), "{} joined twice", id());
                    there.push(id());
                }
                Some("pusher_internal:member_removed") => {
                    assert!(there.contains(&id()), "{} left twice", id());
                    there.retain(|it| *it != id());
                }
                _ => {}
            }
        }
        there.sort_unstable();
        there
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// The data of an event, which is JSON in a string.
pub fn data_of(event: &Value) -> Value {
    match event["data"].as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        None => event["data"].clone(),
    }
}

/// A call of the demo app's backend to an `http://` listener: code and body.
pub fn call(address: &str, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} /apps/demo/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer demo-secret\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.get(9..12).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Ok((code.unwrap_or(0), body))
}

/// Publishes one event; code and body.
pub fn publish(address: &str, channel: &str, data: &str) -> std::io::Result<(u16, Value)> {
    let body = json!({"name": "e", "channel": channel, "data": data}).to_string();
    call(address, "POST", "events", &body)
}
