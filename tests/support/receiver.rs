//! A web server that receives webhooks, as simple as can be: a thread for each connection, over TLS
//! if it has a certificate. It keeps what came, and behaves as it is told.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::wait_until;

/// How it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Fine,
    Status(u16),
    /// Reads and says nothing.
    Silent,
}

#[derive(Clone, Debug)]
pub struct Request {
    fields: Vec<(String, String)>,
    pub body: String,
    fine: bool,
}

impl Request {
    /// The value of a field whose name has these very letters.
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(other, _)| other == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn is_signed(&self, secret: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = self.field("X-Pusher-Signature").as_bytes();
        let tag = data_encoding::HEXLOWER
            .decode(signature)
            .unwrap_or_default();
        hmac::verify(&key, self.body.as_bytes(), &tag).is_ok()
    }
}

struct Seen {
    manner: Manner,
    requests: Vec<Request>,
    connections: usize,
}

pub struct Receiver {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Receiver {
    pub fn start() -> Receiver {
        Receiver::open("http://127.0.0.1", Some)
    }

    /// Its URL has the name localhost.
    pub fn start_secured(config: ServerConfig) -> Receiver {
        let config = Arc::new(config);
        Receiver::open("https://localhost", move |stream| {
            let tls = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(StreamOwned::new(tls, stream))
        })
    }

    /// `secure` makes of an accepted connection what is read from and written to.
    fn open<S: Read + Write + Send + 'static>(
        origin: &str,
        secure: impl Fn(TcpStream) -> Option<S> + Send + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Seen {
            manner: Manner::Fine,
            requests: Vec::new(),
            connections: 0,
        }));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                shared.lock().expect("no panic").connections += 1;
                if let Some(stream) = secure(stream) {
                    std::thread::spawn(move || serve(stream, &shared));
                }
            }
        });
        Receiver {
            url: format!("{origin}:{port}/hooks"),
            seen,
        }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn behave(&self, manner: Manner) {
        self.seen.lock().expect("no panic").manner = manner;
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic").requests.clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().expect("no panic").connections
    }

    /// The events of all requests that were answered well.
    pub fn events(&self) -> Vec<Value> {
        events_of(self.requests())
    }

    /// The same without requests that came before, byte for byte: what a sender repeats that was
    /// killed before it could note the answer.
    pub fn distinct_events(&self) -> Vec<Value> {
        let mut seen = BTreeSet::new();
        let mut requests = self.requests();
        requests.retain(|request| request.fine && seen.insert(request.body.clone()));
        events_of(requests)
    }

    /// Waits until there are so many events.
    pub fn wait_for(&self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        wait_until("the webhooks arrive", || {
            events = self.events();
            events.len() >= count
        });
        events
    }
}

fn events_of(requests: Vec<Request>) -> Vec<Value> {
    let mut events = Vec::new();
    for request in requests.iter().filter(|request| request.fine) {
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        assert!(body["time_ms"].is_u64(), "{body}");
        events.extend(body["events"].as_array().expect("a list").iter().cloned());
    }
    events
}

fn serve<S: Read + Write>(stream: S, seen: &Mutex<Seen>) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read(&mut stream) {
        let manner = {
            let mut seen = seen.lock().expect("no panic");
            request.fine = seen.manner == Manner::Fine;
            seen.requests.push(request);
            seen.manner
        };
        let status = match manner {
            Manner::Fine => 200,
            Manner::Status(status) => status,
            Manner::Silent => {
                std::thread::sleep(Duration::from_secs(60));
                return;
            }
        };
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\n{{}}");
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut BufReader<impl Read>) -> Option<Request> {
    let mut line = String::new();
    stream
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    assert!(line.starts_with("POST /hooks HTTP/1.1"), "{line}");
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        fields.push((name.to_string(), value.to_string()));
    }
    let length = fields.iter().find(|(name, _)| name == "Content-Length");
    let mut body = vec![0; length?.1.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).expect("text");
    Some(Request {
        fields,
        body,
        fine: false,
    })
}
