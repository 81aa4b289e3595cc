//! A client of the world: speaks HTTP, and WebSocket after an upgrade, or lines, or frames, with a
//! parser of its own.
//! It remembers everything it was told.

use std::collections::VecDeque;

use aws_lc_rs::hmac;
use lineman::wire::websocket::{CLOSE, PONG, TEXT, client_frame};
use serde_json::{Value, json};

use super::{KEY, SECRET};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Http,
    WebSocket,
    Lines,
    Frames,
}

impl Speech {
    /// A message as the client sends it.
    pub fn message(self, message: &str) -> Vec<u8> {
        match self {
            Speech::Http | Speech::WebSocket => text(message),
            Speech::Lines => format!("{message}\n").into_bytes(),
            Speech::Frames => {
                let mut bytes = (message.len() as u32 + 4).to_be_bytes().to_vec();
                bytes.extend_from_slice(message.as_bytes());
                bytes
            }
        }
    }

    /// What opens a Pusher connection.
    pub fn connect(self) -> Vec<u8> {
        match self {
            Speech::Http | Speech::WebSocket => upgrade(&format!("/app/{KEY}?protocol=7")),
            Speech::Lines | Speech::Frames => {
                let data = json!({"app_key": KEY, "protocol": 7});
                self.message(&json!({"event": "pusher:connect", "data": data}).to_string())
            }
        }
    }
}

/// One thing the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Answer {
        status: u16,
        head: String,
        body: String,
    },
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Pong,
    /// Code and reason.
    Close(u16, String),
}

pub struct Client {
    pub index: usize,
    pub speech: Speech,
    /// It closed, or the server did.
    pub gone: bool,
    /// It reads nothing.
    pub stalled: bool,
    received: Vec<u8>,
    pub socket_id: Option<String>,
    /// Status and body of each HTTP answer.
    pub answers: Vec<(u16, String)>,
    /// Pusher events, `data` parsed if it is JSON.
    pub events: Vec<Value>,
    /// WebSocket messages as they came.
    pub texts: Vec<String>,
    /// The code of the server's Close frame.
    pub close_code: Option<u16>,
    /// What it owes the server by protocol.
    pub reply: Vec<u8>,
    /// Everything, in the order it came.
    pub heard: VecDeque<Heard>,
    /// It answers no PING.
    pub deaf: bool,
    /// The next answer belongs to a HEAD request.
    pub asked_for_head: bool,
}

impl Client {
    pub fn new(index: usize, speech: Speech) -> Client {
        Client {
            index,
            speech,
            gone: false,
            stalled: false,
            received: Vec::new(),
            socket_id: None,
            answers: Vec::new(),
            events: Vec::new(),
            texts: Vec::new(),
            close_code: None,
            reply: Vec::new(),
            heard: VecDeque::new(),
            deaf: false,
            asked_for_head: false,
        }
    }

    pub fn receive(&mut self, bytes: &[u8], ended: bool) {
        self.received.extend_from_slice(bytes);
        while self.take_one() {}
        self.gone |= ended;
    }

    fn take_one(&mut self) -> bool {
        match self.speech {
            Speech::Http => self.take_answer(),
            Speech::WebSocket => self.take_frame(),
            Speech::Lines => {
                let end = self.received.iter().position(|byte| *byte == b'\n');
                self.take_raw(end.map(|end| (0, end, end + 1)))
            }
            Speech::Frames => {
                let prefix = self.received.first_chunk::<4>();
                let whole = prefix.map(|prefix| u32::from_be_bytes(*prefix) as usize);
                let whole = whole.filter(|whole| *whole <= self.received.len());
                self.take_raw(whole.map(|whole| (4, whole, whole)))
            }
        }
    }

    /// Start and end of a message and where the next begins.
    fn take_raw(&mut self, found: Option<(usize, usize, usize)>) -> bool {
        let Some((start, end, next)) = found else {
            return false;
        };
        let text = String::from_utf8(self.received[start..end].to_vec()).expect("text");
        self.received.drain(..next);
        self.take_text(text);
        true
    }

    fn take_answer(&mut self) -> bool {
        let Some(end) = self.received.windows(4).position(|w| w == b"\r\n\r\n") else {
            return false;
        };
        let head = String::from_utf8(self.received[..end].to_vec()).expect("heads are text");
        let status: u16 = head[9..12].parse().expect("a status");
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let length = match std::mem::take(&mut self.asked_for_head) {
            true => 0,
            false => length,
        };
        let whole = end + 4 + length;
        if self.received.len() < whole {
            return false;
        }
        let body = String::from_utf8(self.received[end + 4..whole].to_vec()).expect("text");
        self.received.drain(..whole);
        if status == 101 {
            self.speech = Speech::WebSocket;
        }
        self.heard.push_back(Heard::Answer {
            status,
            head,
            body: body.clone(),
        });
        self.answers.push((status, body));
        true
    }

    fn take_frame(&mut self) -> bool {
        let bytes = &self.received;
        let [first, second, ..] = bytes[..] else {
            return false;
        };
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (length, start) = match second {
            126 if bytes.len() >= 4 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 if bytes.len() >= 10 => (
                u64::from_be_bytes(bytes[2..10].try_into().expect("eight")) as usize,
                10,
            ),
            126 | 127 => return false,
            short => (usize::from(short), 2),
        };
        if bytes.len() < start + length {
            return false;
        }
        let payload = bytes[start..start + length].to_vec();
        self.received.drain(..start + length);
        match first {
            0x81 => self.take_text(String::from_utf8(payload).expect("text frames are UTF-8")),
            0x82 => self.heard.push_back(Heard::Binary(payload)),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                let reason = String::from_utf8(payload[2..].to_vec()).expect("a readable reason");
                self.heard.push_back(Heard::Close(code, reason));
                self.close_code = Some(code);
                self.reply
                    .extend(client_frame(CLOSE, true, [1, 2, 3, 4], &payload[..2]));
            }
            0x89 => {
                self.heard.push_back(Heard::Ping);
                if !self.deaf {
                    self.reply
                        .extend(client_frame(PONG, true, [1, 2, 3, 4], &payload));
                }
            }
            0x8a => self.heard.push_back(Heard::Pong),
            other => panic!("an unexpected frame {other:#x}"),
        }
        true
    }

    fn take_text(&mut self, text: String) {
        if let Ok(mut event) = serde_json::from_str::<Value>(&text) {
            if let Some(Ok(data)) = event["data"].as_str().map(serde_json::from_str::<Value>) {
                event["data"] = data;
            }
            if event["event"] == "pusher:connection_established" {
                self.socket_id = event["data"]["socket_id"].as_str().map(str::to_owned);
            }
            self.events.push(event);
        }
        self.heard.push_back(Heard::Text(text.clone()));
        self.texts.push(text);
    }

    /// Takes the events received so far.
    pub fn take_events(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.events)
    }
}

/// The request that opens a Pusher connection.
pub fn upgrade(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

pub fn text(message: &str) -> Vec<u8> {
    client_frame(TEXT, true, [0x12, 0x34, 0x56, 0x78], message.as_bytes())
}

/// A subscription by WebSocket.
pub fn subscribe(socket_id: &str, channel: &str, user_id: Option<&str>) -> Vec<u8> {
    text(&subscription(socket_id, channel, user_id))
}

/// A subscription, signed as a customer's backend would.
pub fn subscription(socket_id: &str, channel: &str, user_id: Option<&str>) -> String {
    let channel_data =
        user_id.map(|id| json!({"user_id": id, "user_info": {"of": id}}).to_string());
    let mut data = json!({"channel": channel});
    if channel.starts_with("private-") || channel.starts_with("presence-") {
        let signed = match &channel_data {
            Some(channel_data) => format!("{socket_id}:{channel}:{channel_data}"),
            None => format!("{socket_id}:{channel}"),
        };
        data["auth"] = json!(format!("{KEY}:{}", signature(&signed)));
    }
    if let Some(channel_data) = channel_data {
        data["channel_data"] = json!(channel_data);
    }
    json!({"event": "pusher:subscribe", "data": data}).to_string()
}

pub fn signature(text: &str) -> String {
    signature_with(SECRET, text)
}

pub fn signature_with(secret: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    data_encoding::HEXLOWER.encode(hmac::sign(&key, text.as_bytes()).as_ref())
}

/// A sign-in with a watchlist.
pub fn sign_in(socket_id: &str, user_id: &str, watchlist: &[&str]) -> String {
    let user_data = json!({"id": user_id, "watchlist": watchlist}).to_string();
    let auth = signature(&format!("{socket_id}::user::{user_data}"));
    let data = json!({"auth": format!("{KEY}:{auth}"), "user_data": user_data});
    json!({"event": "pusher:signin", "data": data}).to_string()
}

/// A call of the HTTP API with the secret as bearer token.
pub fn call(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {SECRET}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
