//! Scripted push providers: what APNs, FCM, a Web Push service or Azure would answer a request, or
//! what a script makes it answer instead; for developers without an account, and for tests. Knows
//! no connection but by its number. It shares no code with `push`, whose mistakes it is to find.
//!
//! Invariant: every request is heard once and gets one act. Everything that is remembered has a bound.

pub mod apns;
mod apns_channels;
pub mod azure;
pub mod azure_vault;
pub mod fcm;
mod fcm_message;
pub mod jwt;
#[cfg(test)]
mod kit;
pub mod line;
pub mod script;
pub mod subscriber;
pub mod webpush;

use std::time::Duration;

use serde_json::Value;

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::base::uuid;
use line::Line;
use script::{Deed, GoAway, Rule, Script};

/// A whole request, by whichever version of HTTP it came.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Host and port, as the client wrote them.
    pub authority: String,
    /// Names in small letters, in the order in which they came.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether `body` is all of it.
    pub whole: bool,
}

impl Asked {
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&*self.target, |(path, _)| path)
    }

    /// Empty when there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first field of that name, which is given in small letters.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter().filter(move |(found, _)| found == name);
        fields.map(|(_, value)| &**value)
    }

    /// What follows the scheme in `Authorization`, if it is that scheme, in any case.
    pub fn authorization(&self, scheme: &str) -> Option<&str> {
        let (found, rest) = self.field("authorization")?.split_once(' ')?;
        found.eq_ignore_ascii_case(scheme).then_some(rest.trim())
    }
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// Without content-type and content-length.
    pub fields: Vec<(&'static str, String)>,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    /// Why, in the provider's word or in ours; for the line.
    pub reason: String,
}

impl Reply {
    pub fn empty(status: u16) -> Reply {
        Reply {
            status,
            ..Reply::default()
        }
    }

    pub fn json(status: u16, body: &Value) -> Reply {
        Reply {
            content_type: "application/json",
            body: body.to_string().into_bytes(),
            ..Reply::empty(status)
        }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.fields.push((name, value.to_string()));
        self
    }

    pub fn because(mut self, reason: impl ToString) -> Reply {
        self.reason = reason.to_string();
        self
    }
}

/// What is done about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Behind the answer, the client may be told to go.
    Answer(Reply, Option<GoAway>),
    /// Never answered.
    Silence,
    /// Its stream is reset with this code; over HTTP/1.1 the connection is cut.
    Reset(u32),
    /// The connection takes this request no more, nor any that came behind it.
    GoAway(GoAway),
    /// The connection is cut.
    Cut,
}

/// What came of hearing a request.
#[derive(Debug)]
pub struct Heard {
    pub act: Act,
    pub delay: Duration,
    /// The client has signed in: it may have all streams now.
    pub signed_in: bool,
    /// What was asked and answered, as one line of JSON; `None` if nobody wants it.
    pub line: Option<String>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The connection's number; never used twice.
    pub connection: u64,
    /// 1 or 2.
    pub version: u8,
}

/// What a request is about, before it is judged.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// A notification; rules that name no path are for these alone.
    pub is_push: bool,
    /// To whom: a token, a topic, a channel, a subscription. Empty when there is none.
    pub token: String,
    /// What it says, in clear if we can read it.
    pub payload: Value,
    /// Why we cannot.
    pub unreadable: Option<&'static str>,
}

/// An answer by a provider's own rules.
pub struct Judged {
    pub reply: Reply,
    pub signed_in: bool,
}

impl From<Reply> for Judged {
    fn from(reply: Reply) -> Judged {
        Judged {
            reply,
            signed_in: false,
        }
    }
}

/// One of the services that are imitated.
pub trait Provider {
    fn kind(&self) -> Kind;

    fn sight(&mut self, asked: &Asked) -> Sight;

    /// The answer that the service itself would give.
    fn judge(&mut self, caller: Caller, asked: &Asked, sight: &Sight, world: World<'_>) -> Judged;

    /// The answer that a script asks for.
    fn say(&mut self, status: u16, word: &str, asked: &Asked, world: World<'_>) -> Reply;

    /// The connection is gone.
    fn left(&mut self, _connection: u64) {}
}

/// What a provider may not make up itself.
pub struct World<'a> {
    pub now: Now,
    pub dice: &'a mut Dice,
}

impl World<'_> {
    /// A random UUID (RFC 9562 section 5.4), in small letters.
    pub fn uuid(&mut self) -> String {
        uuid::of_version(4, self.dice.next_u128())
    }
}

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Apns,
    Fcm,
    WebPush,
    Azure,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Apns => "apns",
            Kind::Fcm => "fcm",
            Kind::WebPush => "webpush",
            Kind::Azure => "azure",
        }
    }

    /// Every word that a script may have answered, with its status. Of those that share a status, the
    /// first is meant by the bare number.
    pub fn words(self) -> &'static [(&'static str, u16)] {
        match self {
            Kind::Apns => apns::WORDS,
            Kind::Fcm => fcm::WORDS,
            Kind::WebPush => webpush::WORDS,
            Kind::Azure => azure::WORDS,
        }
    }
}

/// A provider with its script.
pub struct Mock {
    provider: Box<dyn Provider + Send>,
    script: Script,
    dice: Dice,
    tells: bool,
}

impl Mock {
    /// `tells`: whether lines are wanted.
    pub fn new(
        provider: Box<dyn Provider + Send>,
        script: Script,
        dice: Dice,
        tells: bool,
    ) -> Mock {
        Mock {
            provider,
            script,
            dice,
            tells,
        }
    }

    pub fn hear(&mut self, caller: Caller, asked: &Asked, now: Now) -> Heard {
        let sight = self.provider.sight(asked);
        let rule = self.script.find(asked, &sight, &mut self.dice);
        let dice = &mut self.dice;
        let world = World { now, dice };
        let mut signed_in = false;
        let act = match &rule {
            Some(rule) if rule.deed != Deed::Nothing => {
                obey(rule, &mut *self.provider, asked, world)
            }
            _ => {
                let judged = self.provider.judge(caller, asked, &sight, world);
                signed_in = judged.signed_in;
                Act::Answer(judged.reply, None)
            }
        };
        let act = match (act, rule.as_ref().and_then(|rule| rule.retry_after)) {
            (Act::Answer(reply, goaway), Some(seconds)) => {
                Act::Answer(reply.with("retry-after", seconds), goaway)
            }
            (act, _) => act,
        };
        // Whom a script accepts has signed in as well.
        signed_in |= matches!(&act, Act::Answer(reply, _) if rule.is_some() && reply.status < 300);
        let delay = rule.as_ref().map_or(Duration::ZERO, |rule| rule.delay);
        let line = self.tells.then(|| {
            Line::new(self.provider.kind(), caller, asked, &sight, now)
                .with(&act, delay, rule.map(|rule| rule.number))
                .text()
        });
        Heard {
            act,
            delay,
            signed_in,
            line,
        }
    }

    /// The connection is gone.
    pub fn left(&mut self, connection: u64) {
        self.provider.left(connection);
    }
}

fn obey(rule: &Rule, provider: &mut dyn Provider, asked: &Asked, world: World<'_>) -> Act {
    match &rule.deed {
        Deed::Answer {
            status,
            word,
            goaway,
        } => {
            let mut reply = provider.say(*status, word, asked, world);
            if let Some(body) = &rule.body {
                reply.body = body.clone().into_bytes();
            }
            Act::Answer(reply, goaway.clone())
        }
        Deed::Nothing | Deed::Silence => Act::Silence,
        Deed::Reset(code) => Act::Reset(*code),
        Deed::GoAway(goaway) => Act::GoAway(goaway.clone()),
        Deed::Cut => Act::Cut,
    }
}
