//! One connection of a mock: not known yet, then HTTP/1.1 or HTTP/2. Owns what came and is not whole,
//! and makes the same kind of request of either. Decides no answer.

use bytes::Bytes;

use crate::base::bytes::{Full, Inbox, Outbox};
use crate::base::limits::Limits;
use crate::base::now::{Moment, Now};
use crate::mock::script::GoAway as Words;
use crate::mock::{Asked, Reply};
use crate::node::Ending;
use crate::session::http::{AfterAnswer, Http, HttpStep};
use crate::session::http2::StreamKey;
use crate::session::http2::server::{Http2Call, Http2Server, ServerOptions};
use crate::wire::http::{Request, Response};
use crate::wire::http2::{Http2Asked, Http2Reply};
use crate::wire::http2_frames::GoAway;

use super::BODY_BYTES;

/// How every HTTP/2 connection begins, as far as it tells it from HTTP/1.1 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// Behind a request of HTTP/1.1 that is not answered, so much may wait.
const LEFTOVER_BYTES: usize = 64 * 1024;

/// One connection.
pub(super) struct Seat {
    /// It is the n-th there was.
    pub number: u64,
    /// Under which time the node has it listed.
    pub noted: Option<Moment>,
    options: ServerOptions,
    talk: Talk,
    /// Input of HTTP/1.1 that is not used yet.
    leftover: Vec<u8>,
    /// The last stream that asked.
    last_stream: u32,
}

enum Talk {
    /// Nothing has come that tells; HTTP/1.1 until it does.
    One(Http),
    Two(Box<Http2Server>),
}

/// What a connection wants.
pub(super) enum Ask {
    Nothing,
    Request(Option<StreamKey>, Asked),
    Close,
}

impl Seat {
    pub fn new(number: u64, (streams_max, start_with_one): (u32, bool), now: Now) -> Seat {
        Seat {
            number,
            noted: None,
            options: ServerOptions {
                streams_max,
                start_with_one,
                body_bytes: BODY_BYTES,
            },
            talk: Talk::One(Http::new(now)),
            leftover: Vec::new(),
            last_stream: 0,
        }
    }

    pub fn received(&mut self, inbox: &mut Inbox<'_>) {
        if let Talk::Two(http2) = &mut self.talk {
            return http2.received(inbox);
        }
        let count = inbox.rest().len();
        self.leftover.extend_from_slice(inbox.take(count));
    }

    /// The client sends nothing more; whether the connection ends with that.
    pub fn hung_up(&mut self) -> bool {
        match &mut self.talk {
            Talk::One(http) => http.hung_up(),
            Talk::Two(http2) => {
                http2.ended();
                false
            }
        }
    }

    pub fn wants_input(&self) -> bool {
        match &self.talk {
            Talk::One(http) => !http.is_answering() || self.leftover.len() < LEFTOVER_BYTES,
            Talk::Two(http2) => http2.wants_input(),
        }
    }

    pub fn deadline(&self, limits: &Limits) -> Option<Moment> {
        match &self.talk {
            Talk::One(http) => http.deadline(limits),
            Talk::Two(_) => None,
        }
    }

    /// Whether the connection ends, because something has lasted too long.
    pub fn elapsed(&mut self, out: &mut Outbox, now: Now, limits: &Limits) -> bool {
        match &mut self.talk {
            Talk::One(http) => http.elapsed(out, now, limits).is_some(),
            Talk::Two(_) => false,
        }
    }

    /// The next request, or what else there is; to be called until there is nothing.
    pub fn next(&mut self, out: &mut Outbox, now: Now, limits: &Limits) -> Ask {
        if self.is_fresh() {
            let count = self.leftover.len().min(PREFACE.len());
            match self.leftover[..count] == PREFACE[..count] {
                true if count < PREFACE.len() => return Ask::Nothing,
                true => self.change(),
                false => {}
            }
        }
        match &mut self.talk {
            Talk::Two(http2) => match http2.poll(out) {
                None => Ask::Nothing,
                Some(Http2Call::Asked { key, request }) => {
                    self.last_stream = self.last_stream.max(key.0);
                    Ask::Request(Some(key), asked_by_two(request))
                }
                Some(Http2Call::Gone { .. }) => self.next(out, now, limits),
                Some(Http2Call::Over { .. }) => Ask::Close,
            },
            Talk::One(http) => {
                let mut leftover = std::mem::take(&mut self.leftover);
                let mut inbox = Inbox::new(&mut leftover);
                let ask = match http.next(&mut inbox, out, now, limits) {
                    HttpStep::Idle => Ask::Nothing,
                    HttpStep::Request(request) => Ask::Request(None, asked_by_one(&request)),
                    HttpStep::Close(_) => Ask::Close,
                };
                let taken = inbox.taken();
                leftover.drain(..taken);
                self.leftover = leftover;
                ask
            }
        }
    }

    /// Whether nothing was asked yet that would tell the version.
    fn is_fresh(&self) -> bool {
        match &self.talk {
            Talk::One(http) => {
                !self.leftover.is_empty() && !http.is_resting() && !http.is_answering()
            }
            Talk::Two(_) => false,
        }
    }

    fn change(&mut self) {
        let mut http2 = Http2Server::new(self.options);
        http2.received(&mut Inbox::new(&mut std::mem::take(&mut self.leftover)));
        self.talk = Talk::Two(Box::new(http2));
    }

    /// Answers the request of HTTP/1.1; how the connection is to end, if it is. `last`: as the last one.
    pub fn answer(
        &mut self,
        reply: Reply,
        last: bool,
        out: &mut Outbox,
        now: Now,
    ) -> Option<Ending> {
        let Talk::One(http) = &mut self.talk else {
            return None;
        };
        if last {
            http.leave();
        }
        let mut response = Response::new(reply.status, reply.content_type, reply.body);
        for (name, value) in reply.fields {
            response = response.with_header(name, value);
        }
        match http.respond(&response, out, now) {
            Ok(AfterAnswer::KeepAlive) => None,
            Ok(_) => Some(Ending::Flushed),
            Err(Full) => Some(Ending::Cut),
        }
    }

    pub fn answer_stream(&mut self, key: StreamKey, reply: &Reply) {
        let Talk::Two(http2) = &mut self.talk else {
            return;
        };
        let mut fields: Vec<(&str, &str)> = Vec::with_capacity(reply.fields.len() + 1);
        if !reply.content_type.is_empty() {
            fields.push(("content-type", reply.content_type));
        }
        fields.extend(reply.fields.iter().map(|(name, value)| (*name, &**value)));
        let reply = Http2Reply {
            status: reply.status,
            fields: &fields,
            body: Bytes::copy_from_slice(&reply.body),
        };
        http2.answer(key, &reply);
    }

    pub fn reset(&mut self, key: StreamKey, code: u32) {
        if let Talk::Two(http2) = &mut self.talk {
            http2.reset(key, code);
        }
    }

    pub fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// `last` unless the words name another one.
    pub fn go_away(&mut self, words: Words, last: u32) {
        let Talk::Two(http2) = &mut self.talk else {
            return;
        };
        let debug = match &*words.reason {
            "" => String::new(),
            reason => serde_json::json!({ "reason": reason }).to_string(),
        };
        http2.go_away(GoAway {
            last: words.last.unwrap_or(last),
            code: words.code,
            debug: debug.into_bytes(),
        });
    }

    pub fn signed_in(&mut self) {
        if let Talk::Two(http2) = &mut self.talk {
            http2.allow_all();
        }
    }
}

fn asked_by_two(request: Http2Asked) -> Asked {
    let fields = request.fields.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value).into_owned();
        (name.to_string(), value)
    });
    Asked {
        fields: fields.collect(),
        method: request.method,
        target: request.target,
        authority: request.authority.unwrap_or_default(),
        body: request.body,
        whole: request.whole,
    }
}

fn asked_by_one(request: &Request<'_>) -> Asked {
    let lines = request.lines.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| {
        let line = String::from_utf8_lossy(line);
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_string()))
    });
    Asked {
        method: request.method.to_string(),
        target: request.target.to_string(),
        authority: request.header("host").unwrap_or_default().to_string(),
        fields: fields.collect(),
        body: request.body.to_vec(),
        whole: true,
    }
}
