//! The head of an HTTP/1.1 answer as a client reads it (RFC 9112 sections 4 and 6.3), and the head
//! of the request that asked for it. Knows no connection. Invariant: an answer whose end two readers
//! could find in different places is refused.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::wire::http2::Fields;
use crate::wire::target::Target;

/// An answer with more header fields is refused.
const FIELDS_MAX: usize = 100;

/// How the end of an answer's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerBody {
    Length(u64),
    Chunked,
    /// The end of the connection is the end of the body.
    UntilEnd,
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// 100 to 599.
    pub status: u16,
    pub body: AnswerBody,
    /// Whether the connection may be used again once the body was read (RFC 9112 section 9.3).
    pub keeps: bool,
}

/// The status line and the fields of an answer, as they were written.
pub(super) struct Answer<'a> {
    pub status: Option<u16>,
    /// Of HTTP/1.
    pub minor: Option<u8>,
    fields: &'a [httparse::Header<'a>],
}

impl<'a> Answer<'a> {
    /// Hands on a whole head, the empty line included; `None` when it is not one of HTTP/1.
    pub fn read<T>(head: &[u8], then: impl FnOnce(&Answer<'_>) -> T) -> Option<T> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut answer = httparse::Response::new(&mut fields);
        match answer.parse(head) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => Some(then(&Answer {
                status: answer.code,
                minor: answer.version,
                fields: answer.headers,
            })),
            _ => None,
        }
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields.iter();
        fields
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value.trim_ascii())
    }

    /// The value, if the field is there once.
    pub fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// Whether a list has this member, in whatever case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        let members = self.all(name).flat_map(|value| value.split(|b| *b == b','));
        members
            .map(<[u8]>::trim_ascii)
            .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// Reads a whole head, the empty line included; it answers a request other than HEAD and CONNECT.
/// Why it cannot be used is told in words that hold nothing the server sent.
pub fn parse(head: &[u8]) -> Result<AnswerHead, String> {
    let read = Answer::read(head, check);
    read.unwrap_or_else(|| Err("the answer is not HTTP".to_string()))
}

fn check(answer: &Answer<'_>) -> Result<AnswerHead, String> {
    let status = answer.status.filter(|code| (100..600).contains(code));
    let status = status.ok_or("the answer has no status")?;
    if status == 101 {
        return Err("the server changes to a protocol nobody asked for".to_string());
    }
    let closes = answer.has_token("connection", "close");
    let newer = answer.minor == Some(1);
    let codings: Vec<&[u8]> = answer.all("transfer-encoding").collect();
    let lengths: Vec<&[u8]> = answer.all("content-length").collect();
    let body = match (codings.as_slice(), lengths.as_slice()) {
        _ if status < 200 || status == 204 || status == 304 => AnswerBody::Length(0),
        ([], []) => AnswerBody::UntilEnd,
        ([], [length]) => AnswerBody::Length(read_length(length)?),
        ([coding], []) if newer && coding.eq_ignore_ascii_case(b"chunked") => AnswerBody::Chunked,
        _ => return Err("it cannot be known where the answer ends".to_string()),
    };
    Ok(AnswerHead {
        status,
        body,
        keeps: newer && !closes && body != AnswerBody::UntilEnd,
    })
}

/// RFC 9110 section 8.6.
fn read_length(value: &[u8]) -> Result<u64, String> {
    let digits = std::str::from_utf8(value).unwrap_or_default();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let length = digits.parse().ok().filter(|_| plain);
    length.ok_or_else(|| "the length of the answer is no number".to_string())
}

/// All fields of a head that `parse` has taken.
pub fn fields(head: &[u8]) -> Fields {
    let read = Answer::read(head, |answer| {
        let mut fields = HeaderMap::new();
        for field in answer.fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value.trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                fields.append(name, value);
            }
        }
        fields
    });
    Fields::new(read.unwrap_or_default())
}

/// A whole request. `head` has an absolute URI (`Http2Origin::head`), so `Host` is said first (RFC
/// 9112 section 3.2); whoever has no body to post says so.
pub fn request(head: &http::Request<()>, body: &[u8]) -> Vec<u8> {
    let uri = head.uri();
    let path = uri.path_and_query().map_or("/", |it| it.as_str());
    let host = uri.authority().map_or("", |it| it.as_str());
    let start = format!("{} {path} HTTP/1.1\r\nhost: {host}\r\n", head.method());
    let mut bytes = start.into_bytes();
    for (name, value) in head.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if body.is_empty() && head.method() == Method::POST {
        bytes.extend(b"content-length: 0\r\n");
    }
    bytes.extend([b"\r\n", body].concat());
    bytes
}

/// A whole POST request; `fields` beside those of the target, which come last.
pub fn post(target: &Target, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n",
        target.path_and_query(),
        target.authority(),
        body.len(),
    );
    end_head(&mut head, fields.iter().copied().chain(target.headers()));
    [head.as_bytes(), body].concat()
}

/// Writes the last fields of a request's head, and the empty line behind them.
pub(super) fn end_head<'a>(head: &mut String, fields: impl Iterator<Item = (&'a str, &'a str)>) {
    for (name, value) in fields {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<(u16, AnswerBody, bool), String> {
        let head = parse(format!("{head}\r\n\r\n").as_bytes())?;
        Ok((head.status, head.body, head.keeps))
    }

    #[test]
    fn the_end_of_an_answer_is_where_its_head_says() {
        use AnswerBody::*;
        let table = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3",
                (200, Length(3), true),
            ),
            ("HTTP/1.1 204 No Content", (204, Length(0), true)),
            ("HTTP/1.1 100 Continue", (100, Length(0), true)),
            ("HTTP/1.1 500 No", (500, UntilEnd, false)),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 3",
                (200, Length(3), false),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked",
                (200, Chunked, true),
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: a, Close\r\ncontent-length: 0",
                (200, Length(0), false),
            ),
        ];
        for (head, expected) in table {
            assert_eq!(read(head), Ok(expected), "{head}");
        }
    }

    #[test]
    fn an_answer_with_two_readings_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: +3",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999",
            "HTTP/1.1 101 Switching\r\nUpgrade: h2c",
            "HTTP/1.1 700 OK",
            "220 mail.example ESMTP",
        ] {
            assert!(read(head).is_err(), "{head}");
        }
    }

    #[test]
    fn a_request_says_how_long_it_is() {
        let target = Target::parse_web("http://a.example:81/b?c").expect("a URL");
        let request = post(&target, &[("X-A", "1")], b"{}");
        let expected = "POST /b?c HTTP/1.1\r\nHost: a.example:81\r\nContent-Length: 2\r\n\
                        X-A: 1\r\n\r\n{}";
        assert_eq!(String::from_utf8(request), Ok(expected.to_string()));
    }
}
