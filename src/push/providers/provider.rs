//! The contract of every push provider: a request out of a note, an address and a pass; a ruling out
//! of an answer. Owns what these are made of. A provider is one pure type with both functions: it
//! opens nothing, keeps nothing between two calls, and does not know when it is called.
//!
//! How the courier uses it: it keeps one `Pass` for each credential (for Web Push one for each
//! credential and origin), makes a new one at `renew_at`, and goes on with the old one until
//! `ends_at` while making it fails. It sends `Request`s with the same `origin` and credential over the
//! same connections. What never became an answer is ruled by `lost`.

use std::fmt;
use std::time::Duration;

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::providers::address::Address;
use crate::push::providers::note::{Expired, Note};
use crate::push::providers::verdict::{Remedy, Ruling, Scope, Verdict, WAIT_MAX};
use crate::wire::http_date::parse_imf_fixdate;

/// See the file's head.
pub trait Provider {
    /// `pass` is what this provider's credential made; `None` where a client certificate stands for
    /// it. `dice` is drawn for what must never repeat: keys, salts, boundaries.
    fn request(
        &self,
        note: &Note,
        to: &Address,
        pass: Option<&Pass>,
        now: Now,
        dice: &mut Dice,
    ) -> Result<Request, Unfit>;

    fn ruling(&self, answer: &Answer<'_>, now: Now) -> Ruling;

    fn patience(&self) -> Patience;

    /// How one request carries a note to many; `None` where each address needs one of its own.
    fn batch(&self) -> Option<&dyn Batch> {
        None
    }

    /// How requests to many such addresses are made of one draft; `None` where each is different.
    fn drafting(&self, _to: &Address) -> Option<&dyn Drafting> {
        None
    }
}

/// Requests that differ in little: what they have in common is made once for many devices.
pub trait Drafting {
    /// What the requests with this note have in common; it holds for the second of `now`.
    fn draft(&self, note: &Note, pass: Option<&Pass>, now: Now) -> Result<Draft, Unfit>;

    /// What is this device's own: a request without what is in the draft. `id` is the note's.
    fn own(&self, id: &str, to: &Address) -> Result<Request, Unfit>;
}

/// A request but for what is one device's own.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
}

/// One request for many deliveries of the same note. Its answer is ruled by `Provider::ruling`, what
/// never became one by `lost`; what that means for each of them is `for_all`'s to say.
pub trait Batch {
    /// How many addresses one request takes.
    fn limit(&self) -> usize;

    /// How many bytes their tokens may have together.
    fn limit_bytes(&self) -> usize;

    /// Whether both can be in one request; to be in one with itself an address has to be of a kind
    /// that goes into batches at all.
    fn go_together(&self, one: &Address, other: &Address) -> bool;

    /// `to`: at least one and at most `limit` addresses, all of which go together.
    fn request(
        &self,
        note: &Note,
        to: &[&Address],
        pass: Option<&Pass>,
        now: Now,
        dice: &mut Dice,
    ) -> Result<Request, Unfit>;
}

/// What one ruling means for each of `count` deliveries that shared its request: the same for all.
/// `None`: it speaks of one of them without saying which, or perhaps of batches, so that each has to
/// be sent alone; no attempt is counted.
pub fn for_all(ruling: Ruling, count: usize) -> Option<Ruling> {
    let of_one = match &ruling.verdict {
        Verdict::BadRequest | Verdict::TokenDead { .. } | Verdict::TokenSuspect => true,
        Verdict::RetryAfter { scope, .. } => {
            *scope == Scope::Token || ruling.remedy == Remedy::Alert
        }
        _ => false,
    };
    (count < 2 || !of_one).then_some(ruling)
}

/// How long to wait for this provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For an answer; then the request is `lost`.
    pub answer: Duration,
    /// Before the first further attempt after `Verdict::Retry`; then doubled.
    pub first_retry: Duration,
    /// After this no further attempt is made, however long the note would live.
    pub give_up: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Delete,
}

impl Method {
    pub fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        }
    }
}

/// One field of a request's head. The name is in lower case, as HTTP/2 wants it.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub value: String,
    /// Never enters a compression table (RFC 7541 section 7.1.3), nor a log.
    pub secret: bool,
}

impl Field {
    pub fn new(name: &'static str, value: impl Into<String>) -> Field {
        Field {
            name,
            value: value.into(),
            secret: false,
        }
    }

    pub fn secret(name: &'static str, value: impl Into<String>) -> Field {
        Field {
            secret: true,
            ..Field::new(name, value)
        }
    }
}

/// A request without its connection. `Debug` shows neither path nor values: tokens stand in them.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// `https://HOST[:PORT]`, in lower case; with the credential it says which connections fit.
    pub origin: String,
    /// With its query. It holds the token: never indexed by HPACK, never logged.
    pub path: String,
    /// Without `host` and `content-length`.
    pub fields: Vec<Field>,
    /// Goes out as it is, uncompressed.
    pub body: Vec<u8>,
    /// Whether a stranger chose the origin: then only public addresses are connected to, as resolved
    /// at that moment, and the origin has to be on the list of push services.
    pub public_only: bool,
}

/// Names and values, as a session takes them.
pub fn pairs(fields: &[Field]) -> Vec<(&str, &str)> {
    let fields = fields.iter();
    fields.map(|it| (it.name, it.value.as_str())).collect()
}

impl Request {
    pub fn new(method: Method, origin: &str, path: String) -> Request {
        Request {
            method,
            origin: origin.to_string(),
            path,
            fields: Vec::new(),
            body: Vec::new(),
            public_only: false,
        }
    }

    pub fn field(&mut self, name: &'static str, value: impl Into<String>) {
        self.fields.push(Field::new(name, value));
    }

    /// A field that is never indexed nor shown.
    pub fn secret_field(&mut self, name: &'static str, value: impl Into<String>) {
        self.fields.push(Field::secret(name, value));
    }

    pub fn with_body(mut self, media_type: &str, body: Vec<u8>) -> Request {
        self.field("content-type", media_type);
        self.body = body;
        self
    }

    /// The value of the first field of that name.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|field| field.name == name);
        found.map(|field| field.value.as_str())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.fields.iter().map(|field| field.name);
        let (method, bytes) = (self.method.word(), self.body.len());
        write!(f, "{method} {}/… {bytes} bytes, ", self.origin)?;
        f.debug_list().entries(names).finish()
    }
}

/// What proves who sends: the value of a request's `authorization` field.
#[derive(Clone, PartialEq, Eq)]
pub struct Pass {
    pub authorization: String,
    /// Seconds since 1970: from when on a new one should be made.
    pub renew_at: i64,
    /// Seconds since 1970: from when on the provider refuses it.
    pub ends_at: i64,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pass {
            renew_at, ends_at, ..
        } = self;
        write!(f, "Pass(…, renewed at {renew_at}, ends at {ends_at})")
    }
}

/// Why no request was made. To send it again changes nothing; the note is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Nobody wants to see it any more.
    Expired,
    /// Not what this provider can reach.
    Address,
    /// It needs a pass and there is none, or the other way round.
    Pass,
    /// The provider has no way to check a note without delivering it.
    NoDryRun,
    TooLarge {
        bytes: usize,
        limit: usize,
    },
    /// What is wrong with the note, in a sentence for its author.
    Note(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Expired => write!(f, "it has expired"),
            Unfit::Address => write!(f, "this provider cannot reach such a device"),
            Unfit::Pass => write!(f, "the credential is of another kind"),
            Unfit::NoDryRun => write!(f, "this provider cannot check without delivering"),
            Unfit::TooLarge { bytes, limit } => write!(f, "{bytes} bytes are more than {limit}"),
            Unfit::Note(why) => write!(f, "{why}"),
        }
    }
}

impl From<Expired> for Unfit {
    fn from(_: Expired) -> Unfit {
        Unfit::Expired
    }
}

/// An answer as it came, its body cut at some bound above a kilobyte.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    pub status: u16,
    pub fields: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The value of the first field of that name, in whatever case.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let found = self
            .fields
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }

    /// The body as JSON, null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.body).unwrap_or_default()
    }

    /// `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3), cut at `WAIT_MAX`.
    pub fn retry_after(&self, now: Now) -> Option<Duration> {
        let value = self.field("retry-after")?;
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = match is_number {
            true => value.parse().unwrap_or(u64::MAX),
            false => parse_imf_fixdate(value)?.saturating_sub(now.unix_ms / 1000),
        };
        Some(Duration::from_secs(seconds).min(WAIT_MAX))
    }

    /// For a failure that passes: waits as told, else as the courier thinks right.
    pub fn passing(&self, now: Now) -> Verdict {
        match self.retry_after(now) {
            Some(wait) => Verdict::RetryAfter {
                wait,
                scope: Scope::App,
            },
            None => Verdict::Retry,
        }
    }

    /// For a request of too many: waits as told, else for `or`.
    pub fn throttled(&self, now: Now, or: Duration, scope: Scope) -> Verdict {
        let wait = self.retry_after(now).unwrap_or(or);
        Verdict::RetryAfter { wait, scope }
    }
}

/// How a request ended that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No connection stood: name, TCP or TLS.
    NotConnected,
    /// RST_STREAM with REFUSED_STREAM (RFC 9113 section 8.7).
    Refused,
    /// GOAWAY with a smaller last stream (section 6.8); the smallest seen counts.
    BehindGoaway,
    /// GOAWAY with this stream or a larger one as the last, and no answer since.
    BeforeGoaway,
    /// RST_STREAM with any other code.
    Reset,
    /// No answer within `Patience::answer`.
    Silent,
    /// The connection ended with the request written, or partly.
    Cut,
}

/// The same for every provider.
pub fn lost(how: Lost) -> Ruling {
    let (verdict, reason, remedy) = match how {
        Lost::NotConnected => (Verdict::NeverSent, "not connected", Remedy::Reconnect),
        Lost::Refused => (Verdict::NeverSent, "refused stream", Remedy::Nothing),
        Lost::BehindGoaway => (Verdict::NeverSent, "connection closing", Remedy::Reconnect),
        Lost::BeforeGoaway => (Verdict::Unknown, "connection closed", Remedy::Reconnect),
        Lost::Reset => (Verdict::Unknown, "stream reset", Remedy::Nothing),
        Lost::Silent => (Verdict::Unknown, "no answer in time", Remedy::Nothing),
        Lost::Cut => (Verdict::Unknown, "connection lost", Remedy::Reconnect),
    };
    Ruling::new(verdict, reason).with(remedy)
}

/// An id that may be shown and kept: visible ASCII, cut at 200 bytes.
pub fn shown_id(text: &str) -> Option<String> {
    let mut id = text.to_string();
    id.retain(|it| it.is_ascii_graphic());
    id.truncate(200);
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::now::Moment;

    fn at(unix_ms: u64) -> Now {
        Now {
            moment: Moment::default(),
            unix_ms,
        }
    }

    #[test]
    fn a_hint_is_seconds_or_a_date_and_bounded() {
        let now = at(784_111_777_000);
        let table = [
            ("120", Some(120)),
            ("0", Some(0)),
            ("99999999999999999999", Some(24 * 3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ];
        for (value, expected) in table {
            let fields = [("Retry-After", value)];
            let answer = Answer {
                status: 503,
                fields: &fields,
                body: b"",
            };
            let wait = answer.retry_after(now).map(|wait| wait.as_secs());
            assert_eq!(wait, expected, "{value}");
        }
    }

    #[test]
    fn what_was_never_processed_is_told_from_what_may_have_been() {
        use Remedy::{Nothing, Reconnect};
        let table = [
            (Lost::NotConnected, Verdict::NeverSent, Reconnect),
            (Lost::Refused, Verdict::NeverSent, Nothing),
            (Lost::BehindGoaway, Verdict::NeverSent, Reconnect),
            (Lost::BeforeGoaway, Verdict::Unknown, Reconnect),
            (Lost::Reset, Verdict::Unknown, Nothing),
            (Lost::Silent, Verdict::Unknown, Nothing),
            (Lost::Cut, Verdict::Unknown, Reconnect),
        ];
        for (how, verdict, remedy) in table {
            let ruling = lost(how);
            assert_eq!((ruling.verdict, ruling.remedy), (verdict, remedy));
        }
    }

    #[test]
    fn a_batch_shares_its_fate_unless_one_of_it_is_to_blame() {
        let (wait, since_unix_ms) = (Duration::from_secs(9), None);
        let of = |scope| Verdict::RetryAfter { wait, scope };
        let table = [
            (Verdict::Accepted { id: None }, true),
            (Verdict::TokenDead { since_unix_ms }, false),
            (Verdict::TokenSuspect, false),
            (Verdict::BadRequest, false),
            (Verdict::APP_BROKEN, true),
            (of(Scope::Token), false),
            (of(Scope::App), true),
            (Verdict::Retry, true),
            (Verdict::NeverSent, true),
            (Verdict::Unknown, true),
        ];
        let refused = Ruling::new(of(Scope::App), "x").with(Remedy::Alert);
        assert_eq!(for_all(refused, 2), None, "batches may be what is refused");
        for (verdict, is_shared) in table {
            let ruling = Ruling::new(verdict, "x");
            let shared = is_shared.then(|| ruling.clone());
            assert_eq!(for_all(ruling.clone(), 2), shared, "{ruling:?}");
            assert_eq!(for_all(ruling.clone(), 1), Some(ruling));
        }
    }

    #[test]
    fn a_request_is_shown_without_what_is_secret() {
        let mut request = Request::new(Method::Post, "https://a.example", "/secret".to_string());
        request.secret_field("authorization", "secret");
        let request = request.with_body("text/plain", b"secret".to_vec());
        let pass = Pass {
            authorization: "secret".to_string(),
            renew_at: 1,
            ends_at: 2,
        };
        let shown = format!("{request:?} {pass:?}");
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("authorization"), "{shown}");
    }
}
