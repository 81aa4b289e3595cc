//! Broadcast channels: made, read, listed and removed at hosts of their own (Apple, "Sending channel
//! management requests to APNs"). An app has 10,000 in each environment at most. What is sent to one
//! is a note to an `Address::ApnsChannel`.

use serde_json::{Value, json};

use crate::base::now::Now;
use crate::push::providers::apns::verdict;
use crate::push::providers::apns::{ApnsAuth, proof};
use crate::push::providers::provider::{Answer, Method, Pass, Request, Unfit};
use crate::push::providers::verdict::{Ruling, Verdict};

pub const PRODUCTION: &str = "https://api-manage-broadcast.push.apple.com:2196";
pub const DEVELOPMENT: &str = "https://api-manage-broadcast.sandbox.push.apple.com:2195";

/// What a channel stores it stores no longer than this.
pub const STORED_SECONDS: i64 = 8 * 3600;

/// The channels of one app in one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    pub origin: String,
    pub bundle: String,
    pub auth: ApnsAuth,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelCall {
    /// `stores`: a device that was away gets the last message within `STORED_SECONDS`.
    Create {
        stores: bool,
    },
    Read(String),
    Delete(String),
    List,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelDone {
    /// Its id, base64.
    Created(String),
    Read {
        stores: bool,
    },
    /// Or gone before.
    Deleted,
    List(Vec<String>),
}

impl Channels {
    /// `request_id`: a lower-case UUID, for Apple's logs.
    pub fn request(
        &self,
        call: &ChannelCall,
        request_id: &str,
        pass: Option<&Pass>,
    ) -> Result<Request, Unfit> {
        let (method, end) = match call {
            ChannelCall::Create { .. } => (Method::Post, "channels"),
            ChannelCall::Read(_) => (Method::Get, "channels"),
            ChannelCall::Delete(_) => (Method::Delete, "channels"),
            ChannelCall::List => (Method::Get, "all-channels"),
        };
        let path = format!("/1/apps/{}/{end}", self.bundle);
        let mut request = Request::new(method, &self.origin, path);
        request.fields.extend(proof(self.auth, pass)?);
        request.field("apns-request-id", request_id);
        match call {
            ChannelCall::Read(id) | ChannelCall::Delete(id) => {
                request.field("apns-channel-id", id);
                Ok(request)
            }
            ChannelCall::List => Ok(request),
            ChannelCall::Create { stores } => {
                let policy = u8::from(*stores);
                let body = json!({"message-storage-policy": policy, "push-type": "LiveActivity"});
                Ok(request.with_body("application/json", body.to_string().into_bytes()))
            }
        }
    }

    /// A ruling when it was not done; its `TokenDead` means that there is no such channel.
    pub fn done(
        &self,
        call: &ChannelCall,
        answer: &Answer<'_>,
        now: Now,
    ) -> Result<ChannelDone, Ruling> {
        let json = answer.json();
        let gone = answer.status == 404 && json["reason"] == "BadPath";
        let done = match (call, answer.status) {
            (ChannelCall::Create { .. }, 200 | 201) => {
                let id = answer.field("apns-channel-id");
                id.map(|id| ChannelDone::Created(id.to_string()))
            }
            (ChannelCall::Read(_), 200) => {
                let policy = json["message-storage-policy"].as_u64();
                policy.map(|policy| ChannelDone::Read { stores: policy > 0 })
            }
            (ChannelCall::Delete(_), 200 | 204) => Some(ChannelDone::Deleted),
            (ChannelCall::Delete(_), _) if gone => Some(ChannelDone::Deleted),
            (ChannelCall::List, 200) => json["channels"].as_array().map(|ids| {
                let ids = ids.iter().filter_map(Value::as_str);
                ChannelDone::List(ids.map(str::to_string).collect())
            }),
            _ => return Err(verdict::ruling(answer, now)),
        };
        let unread = || Ruling::new(Verdict::Unknown, "answer not understood");
        done.ok_or_else(unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::kit::{ID, answer, body, head, now, pass, shown};

    fn channels() -> Channels {
        Channels {
            origin: DEVELOPMENT.to_string(),
            bundle: "com.example.app".to_string(),
            auth: ApnsAuth::Token,
        }
    }

    fn calls() -> [ChannelCall; 4] {
        let id = || "dHN0".to_string();
        let stores = true;
        [
            ChannelCall::Create { stores },
            ChannelCall::Read(id()),
            ChannelCall::Delete(id()),
            ChannelCall::List,
        ]
    }

    #[test]
    fn each_call_is_asked_for_as_apple_says() {
        let table = [
            ("POST", "channels", ""),
            ("GET", "channels", "dHN0"),
            ("DELETE", "channels", "dHN0"),
            ("GET", "all-channels", ""),
        ];
        for (call, (method, end, id)) in calls().iter().zip(table) {
            let request = channels().request(call, ID, Some(&pass()));
            let request = request.expect("a request");
            let first = format!("{method} {DEVELOPMENT}/1/apps/com.example.app/{end}");
            assert_eq!(head(&request)[0], first);
            assert_eq!(request.value("authorization"), Some("bearer PASS"));
            assert_eq!(request.value("apns-request-id"), Some(ID));
            assert_eq!(request.value("apns-channel-id").unwrap_or_default(), id);
        }
        let create = channels().request(&calls()[0], ID, Some(&pass()));
        let expected = json!({"message-storage-policy": 1, "push-type": "LiveActivity"});
        assert_eq!(body(&create.expect("a request")), expected);
        let without = channels().request(&calls()[0], ID, None);
        assert_eq!(without, Err(Unfit::Pass));
    }

    #[test]
    fn each_answer_is_read() {
        let [create, read, delete, list] = calls();
        let id = [("apns-channel-id", "bmV3")];
        let stored = r#"{"message-storage-policy":0,"push-type":"LiveActivity"}"#;
        let gone = r#"{"reason":"BadPath"}"#;
        let ids = || vec!["a".to_string(), "b".to_string()];
        #[rustfmt::skip]
        let table = [
            (&create, answer("201", &id, ""), ChannelDone::Created("bmV3".to_string())),
            (&read, answer("200", &[], stored), ChannelDone::Read { stores: false }),
            (&delete, answer("204", &[], ""), ChannelDone::Deleted),
            (&delete, answer("404", &[], gone), ChannelDone::Deleted),
            (&list, answer("200", &[], r#"{"channels":["a","b"]}"#), ChannelDone::List(ids())),
        ];
        for (call, answer, done) in table {
            assert_eq!(channels().done(call, &answer, now()), Ok(done));
        }
    }

    #[test]
    fn what_was_not_done_is_ruled() {
        let [create, read, ..] = calls();
        let full = answer("400", &[], r#"{"reason":"CannotCreateChannelConfig"}"#);
        let gone = answer("404", &[], r#"{"reason":"BadPath"}"#);
        let odd = answer("201", &[], "");
        let table = [
            (&create, full, "BadRequest"),
            (&read, gone, "BadRequest"),
            (&create, odd, "Unknown"),
        ];
        for (call, answer, expected) in table {
            let ruling = channels().done(call, &answer, now()).expect_err(expected);
            assert_eq!(shown(&ruling), expected);
        }
    }
}
