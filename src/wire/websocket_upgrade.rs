//! The WebSocket handshake as a client has it (RFC 6455 section 4.1): the request written, the
//! answer read. Knows no connection. Invariant: an answer that leaves a doubt about who answered, or
//! about what the bytes behind it mean, is refused.

use crate::wire::http_answer::{Answer, end_head};
use crate::wire::target::Target;
use crate::wire::websocket::accept_key;

/// The whole request. `key` is that of `Sec-WebSocket-Key`: 16 random bytes in base64. No extension
/// is offered.
pub fn request(target: &Target, key: &str) -> Vec<u8> {
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n",
        target.path_and_query(),
        target.authority(),
    );
    let own = [
        ("Sec-WebSocket-Protocol", target.subprotocol()),
        ("Origin", target.origin()),
    ];
    let own = own
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    end_head(&mut head, own.chain(target.headers()));
    head.into_bytes()
}

/// Whether the server agreed; `head` is its whole answer up to the empty line. If not, why, in words
/// that hold nothing it sent but the number of its status.
pub fn check_answer(head: &[u8], key: &str, subprotocol: Option<&str>) -> Result<(), String> {
    let read = Answer::read(head, |answer| check(answer, key, subprotocol));
    read.unwrap_or_else(|| Err("the server's answer is not HTTP".to_string()))
}

fn check(answer: &Answer<'_>, key: &str, subprotocol: Option<&str>) -> Result<(), String> {
    match answer.status {
        Some(101) if answer.minor == Some(1) => {}
        Some(101) => return Err("the server answered in HTTP/1.0".to_string()),
        Some(status @ 300..400) => {
            return Err(format!(
                "the server answered with status {status}; redirects are not followed"
            ));
        }
        status => {
            let status = status.unwrap_or_default();
            return Err(format!("the server answered with status {status}, not 101"));
        }
    }
    if !answer.has_token("upgrade", "websocket") || !answer.has_token("connection", "upgrade") {
        return Err("the server's answer does not upgrade to a WebSocket".to_string());
    }
    if answer.only("sec-websocket-accept") != Some(accept_key(key.as_bytes()).as_bytes()) {
        return Err(
            "the server's Sec-WebSocket-Accept is not the one of this handshake".to_string(),
        );
    }
    if answer.all("sec-websocket-extensions").next().is_some() {
        return Err("the server chose an extension that was not offered".to_string());
    }
    let chosen = answer.all("sec-websocket-protocol").next();
    if chosen.is_some() && subprotocol.is_none() {
        return Err("the server chose a subprotocol that was not offered".to_string());
    }
    if answer.only("sec-websocket-protocol") != subprotocol.map(str::as_bytes) {
        return Err("the server did not agree to the subprotocol".to_string());
    }
    // RFC 9110 section 8.6 forbids both in a 1xx answer. Who reads frames behind it and who reads a
    // body must not differ; without a length there is nothing to differ about.
    let mut lengths = answer.all("content-length");
    let bodiless = lengths.all(|length| length == b"0");
    if !bodiless || answer.all("transfer-encoding").next().is_some() {
        return Err("the server's answer has a body".to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn answer(status: &str, fields: &[&str]) -> String {
        let lines = fields.join("\r\n");
        format!("HTTP/1.1 {status}\r\n{lines}\r\n\r\n")
    }

    fn good() -> Vec<String> {
        vec![
            "Upgrade: WebSocket".to_string(),
            "connection: keep-alive, Upgrade".to_string(),
            format!("Sec-WebSocket-Accept: {ACCEPT}"),
        ]
    }

    fn check(fields: &[String], subprotocol: Option<&str>) -> Result<(), String> {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let head = answer("101 Switching Protocols", &fields);
        check_answer(head.as_bytes(), KEY, subprotocol)
    }

    #[test]
    fn the_request_is_that_of_the_rfc() {
        let target = Target::parse("ws://server.example.com/chat?a")
            .and_then(|it| it.with_subprotocol("chat"))
            .and_then(|it| it.with_origin("http://example.com"))
            .and_then(|it| it.with_header("X-Trace", "1"));
        let request = request(&target.expect("a target"), KEY);
        let expected = "GET /chat?a HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n\
                        Origin: http://example.com\r\nX-Trace: 1\r\n\r\n";
        assert_eq!(String::from_utf8(request).expect("ASCII"), expected);
    }

    #[test]
    fn an_answer_that_agrees_is_accepted() {
        assert_eq!(check(&good(), None), Ok(()));
        let mut agreed = good();
        agreed.extend([
            "Sec-WebSocket-Protocol: chat".into(),
            "Content-Length: 0".into(),
        ]);
        assert_eq!(check(&agreed, Some("chat")), Ok(()));
    }

    #[test]
    fn every_doubt_is_a_refusal_with_its_reason() {
        let refused = |fields: &[String], subprotocol, words: &str| {
            let why = check(fields, subprotocol).expect_err(words);
            assert!(why.contains(words), "{why}");
        };
        for missing in 0..3 {
            let mut fields = good();
            fields.remove(missing);
            assert!(check(&fields, None).is_err(), "without field {missing}");
        }
        let mut twice = good();
        twice.push(twice[2].clone());
        refused(&twice, None, "Sec-WebSocket-Accept");
        let mut wrong = good();
        wrong[2] = "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_string();
        refused(&wrong, None, "Sec-WebSocket-Accept");
        let with = |field: &str| {
            let mut fields = good();
            fields.push(field.to_string());
            fields
        };
        let deflate = with("Sec-WebSocket-Extensions: permessage-deflate");
        refused(&deflate, None, "extension that was not offered");
        let chat = with("Sec-WebSocket-Protocol: chat");
        refused(&chat, None, "subprotocol that was not offered");
        refused(&chat, Some("other"), "did not agree");
        refused(&good(), Some("chat"), "did not agree");
        refused(&with("Content-Length: 3"), None, "has a body");
        refused(&with("Transfer-Encoding: chunked"), None, "has a body");
    }

    #[test]
    fn another_status_is_told_by_its_number() {
        let table = [
            (answer("302 Found", &["Location: /b"]), "302; redirects"),
            (answer("403 Forbidden", &["X: y"]), "status 403, not 101"),
            (answer("200 OK", &["X: y"]), "status 200"),
            ("HTTP/1.0 101 Yes\r\n\r\n".to_string(), "HTTP/1.0"),
            ("SSH-2.0-x\r\n\r\n".to_string(), "not HTTP"),
            (answer("101 Yes", &["no field"]), "not HTTP"),
        ];
        for (head, words) in table {
            let why = check_answer(head.as_bytes(), KEY, None).expect_err(words);
            assert!(why.contains(words), "{why}");
        }
    }
}
