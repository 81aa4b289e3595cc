//! Who gets what is sent to a topic: tokens are added and removed, up to a thousand at once (Google's
//! Instance ID API, `batchAdd` and `batchRemove`, as Firebase's own admin SDKs call it). The pass is the
//! one that messages are sent with. Each token has a result of its own.

use serde_json::{Value, json};

use crate::base::now::Now;
use crate::push::providers::address::Address;
use crate::push::providers::fcm::verdict;
use crate::push::providers::provider::{Answer, Method, Pass, Request, Unfit};
use crate::push::providers::verdict::{Remedy, Ruling, Scope, Verdict, word_of};

pub const ORIGIN: &str = "https://iid.googleapis.com";
/// Of one call.
pub const TOKENS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCall {
    Subscribe,
    Unsubscribe,
}

/// Asks for it, from `origin`: `ORIGIN`, or a relay. `tokens`: one to `TOKENS` of them.
pub fn request(
    origin: &str,
    call: TopicCall,
    topic: &Address,
    tokens: &[&Address],
    pass: &Pass,
) -> Result<Request, Unfit> {
    let Address::FcmTopic(topic) = topic else {
        return Err(Unfit::Address);
    };
    let texts = tokens.iter().map(|address| match address {
        Address::FcmToken(token) => Some(token.as_str()),
        _ => None,
    });
    let texts: Option<Vec<&str>> = texts.collect();
    let texts = texts.filter(|it| (1..=TOKENS).contains(&it.len()));
    let texts = texts.ok_or(Unfit::Address)?;
    let end = match call {
        TopicCall::Subscribe => "batchAdd",
        TopicCall::Unsubscribe => "batchRemove",
    };
    let mut request = Request::new(Method::Post, origin, format!("/iid/v1:{end}"));
    request.secret_field("authorization", &pass.authorization);
    // Without it the pass is taken for a key of the service's predecessor.
    request.field("access_token_auth", "true");
    let body = json!({"to": format!("/topics/{topic}"), "registration_tokens": texts});
    Ok(request.with_body("application/json", body.to_string().into_bytes()))
}

/// One ruling for each token, in the order in which they were asked for; an error holds for all of
/// them. A `TokenDead` has no time: `is_dead` decides by when the call was sent.
pub fn done(answer: &Answer<'_>, count: usize, now: Now) -> Result<Vec<Ruling>, Ruling> {
    if answer.status != 200 {
        return Err(refused(answer, now));
    }
    let json = answer.json();
    let results = json["results"].as_array().filter(|it| it.len() == count);
    let unread = || Ruling::new(Verdict::Unknown, "answer not understood");
    let results = results.ok_or_else(unread)?;
    Ok(results.iter().map(|it| of_one(it, answer, now)).collect())
}

fn of_one(result: &Value, answer: &Answer<'_>, now: Now) -> Ruling {
    let word = result["error"].as_str();
    let verdict = match word {
        None => Verdict::Accepted { id: None },
        Some("NOT_FOUND") => Verdict::TokenDead {
            since_unix_ms: None,
        },
        // Of another project, or of no app of this one.
        Some("PERMISSION_DENIED") => Verdict::TokenSuspect,
        Some("RESOURCE_EXHAUSTED") => answer.throttled(now, verdict::QUOTA_WAIT, Scope::App),
        Some("INTERNAL" | "UNAVAILABLE" | "DEADLINE_EXCEEDED") => answer.passing(now),
        // TOO_MANY_TOPICS: 2000 is the most for one app on one device.
        Some(_) => Verdict::BadRequest,
    };
    Ruling::new(verdict, word_of(word.unwrap_or_default(), answer.status))
}

fn refused(answer: &Answer<'_>, now: Now) -> Ruling {
    let json = answer.json();
    let verdict = match answer.status {
        300..=399 | 403 | 404 => Verdict::APP_BROKEN,
        401 => Verdict::NeverSent,
        429 => answer.throttled(now, verdict::QUOTA_WAIT, Scope::App),
        500.. => answer.passing(now),
        _ => Verdict::BadRequest,
    };
    let remedy = match verdict {
        Verdict::NeverSent => Remedy::RenewPass,
        _ => Remedy::Nothing,
    };
    let word = json["error"].as_str().or(json["error"]["status"].as_str());
    Ruling::new(verdict, word_of(word.unwrap_or_default(), answer.status)).with(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::kit::{answer, body, head, now, pass, rows, shown};

    fn token(text: &str) -> Address {
        Address::fcm_token(text).expect("a token")
    }

    fn topic() -> Address {
        Address::fcm_topic("news").expect("a topic")
    }

    fn asked(call: TopicCall, topic: &Address, tokens: &[Address]) -> Result<Request, Unfit> {
        let tokens: Vec<&Address> = tokens.iter().collect();
        request(ORIGIN, call, topic, &tokens, &pass())
    }

    #[test]
    fn tokens_join_and_leave_a_topic() {
        for (call, end) in [
            (TopicCall::Subscribe, "batchAdd"),
            (TopicCall::Unsubscribe, "batchRemove"),
        ] {
            let request = asked(call, &topic(), &[token("a"), token("b")]).expect("a request");
            let expected = [
                &format!("POST https://iid.googleapis.com/iid/v1:{end}"),
                "authorization*: bearer PASS",
                "access_token_auth: true",
                "content-type: application/json",
            ];
            assert_eq!(head(&request), expected);
            let expected = json!({"to": "/topics/news", "registration_tokens": ["a", "b"]});
            assert_eq!(body(&request), expected);
        }
    }

    #[test]
    fn a_call_is_for_one_topic_and_a_thousand_tokens() {
        let call = TopicCall::Subscribe;
        assert!(asked(call, &topic(), &vec![token("a"); 1000]).is_ok());
        for (topic, tokens) in [
            (topic(), vec![token("a"); 1001]),
            (topic(), vec![]),
            (topic(), vec![Address::apns("00").expect("a token")]),
            (token("a"), vec![token("a")]),
        ] {
            assert_eq!(asked(call, &topic, &tokens), Err(Unfit::Address));
        }
    }

    #[test]
    fn each_token_has_its_own_result() {
        let table = r#"
            | {} | Accepted |
            | {"error":"NOT_FOUND"} | TokenDead |
            | {"error":"PERMISSION_DENIED"} | TokenSuspect |
            | {"error":"INVALID_ARGUMENT"} | BadRequest |
            | {"error":"TOO_MANY_TOPICS"} | BadRequest |
            | {"error":"RESOURCE_EXHAUSTED"} | RetryAfter(60) for the app |
            | {"error":"INTERNAL"} | Retry |
            | {"error":"UNAVAILABLE"} | Retry |
            | {"error":"DEADLINE_EXCEEDED"} | Retry |
            | {"error":"NEW"} | BadRequest |
        "#;
        let rows = rows(table);
        let results: Vec<&str> = rows.iter().map(|row| row[0]).collect();
        let body = format!(r#"{{"results":[{}]}}"#, results.join(","));
        let rulings = done(&answer("200", &[], &body), rows.len(), now()).expect("results");
        for (row, ruling) in rows.iter().zip(&rulings) {
            assert_eq!(shown(ruling), row[1], "{row:?}");
        }
        assert_eq!(rulings[1].reason, "NOT_FOUND");
    }

    #[test]
    fn a_call_that_was_refused_is_ruled_as_one() {
        let table = r#"
            | 200 | {"results":[{}]} | Unknown |
            | 200 | - | Unknown |
            | 302 | - | AuthBroken |
            | 400 | {"error":"InvalidArgument"} | BadRequest |
            | 401 | {"error":{"status":"UNAUTHENTICATED"}} | NeverSent, renew |
            | 403 | - | AuthBroken |
            | 404 | - | AuthBroken |
            | 429 | - | RetryAfter(60) for the app |
            | 500 | - | Retry |
            | 503 | - | Retry |
        "#;
        for row in rows(table) {
            let refused = done(&answer(row[0], &[], row[1]), 2, now()).expect_err(row[1]);
            assert_eq!(shown(&refused), row[2], "{row:?}");
        }
        let body = r#"{"error":{"status":"UNAUTHENTICATED"}}"#;
        let refused = done(&answer("401", &[], body), 1, now()).expect_err("no results");
        assert_eq!(refused.reason, "UNAUTHENTICATED");
        assert_eq!(shown(&refused.repeated()), "AuthBroken");
    }
}
