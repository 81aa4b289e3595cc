//! What a client asks over HTTP/2 and what it is answered (RFC 9113 section 8), as values of either
//! end; a client that falls back to HTTP/1.1 has the same. Knows no connection and no frame. No value is ever printed whole: all may hold what is secret.

use std::fmt;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, uri};

/// What is asked; scheme and authority are those of the connection.
#[derive(Clone)]
pub struct Http2Request<'a> {
    /// In capitals; not CONNECT.
    pub method: &'a str,
    /// With the query: `/3/device/…`.
    pub path: &'a str,
    /// What is the same for many requests; then `fields` are this one's alone.
    pub common: Option<&'a CommonFields>,
    /// Names in any case. `content-length` is added where there is a body and none is given.
    ///
    /// `authorization` is kept out of every table of the header compression (RFC 7541 section 7.1.3),
    /// and so is what is one request's alone: it never comes again, and would drive out what does.
    pub fields: &'a [(&'a str, &'a str)],
    pub body: Bytes,
}

/// Fields that many requests have in common, read once.
#[derive(Clone, Default)]
pub struct CommonFields(HeaderMap);

impl CommonFields {
    /// Fails like `Http2Origin::head`.
    pub fn new(fields: &[(&str, &str)]) -> Result<CommonFields, String> {
        let mut common = HeaderMap::with_capacity(fields.len());
        for (name, value) in fields {
            append(&mut common, field(name, value)?)?;
        }
        Ok(CommonFields(common))
    }
}

/// Where a connection leads, as its requests say it.
#[derive(Clone, Debug)]
pub struct Http2Origin {
    scheme: Scheme,
    authority: Authority,
}

impl Http2Origin {
    /// `authority` is `host` or `host:port`. Fails if it cannot stand in a request.
    pub fn new(secured: bool, authority: &str) -> Result<Http2Origin, String> {
        let scheme = if secured { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = Authority::try_from(authority).ok();
        let authority = authority.filter(|it| !it.as_str().contains('@'));
        let authority = authority.ok_or("the authority is not one of a web server")?;
        Ok(Http2Origin { scheme, authority })
    }

    /// The head of a request. Why there can be none is told in words that hold nothing of it but
    /// names of fields.
    pub fn head(&self, request: &Http2Request<'_>) -> Result<Request<()>, String> {
        let mut head = Request::new(());
        let method = Method::from_bytes(request.method.as_bytes()).ok();
        let method = method.filter(|method| *method != Method::CONNECT);
        *head.method_mut() = method.ok_or("the method is none")?;
        *head.uri_mut() = self.uri(request.path)?;
        *head.version_mut() = Version::HTTP_2;
        let fields = head.headers_mut();
        if let Some(CommonFields(common)) = request.common {
            fields.clone_from(common);
        }
        for (name, value) in request.fields {
            let (name, mut value) = field(name, value)?;
            value.set_sensitive(request.common.is_some() || value.is_sensitive());
            append(fields, (name, value))?;
        }
        if !request.body.is_empty() && !fields.contains_key(CONTENT_LENGTH) {
            append(fields, (CONTENT_LENGTH, request.body.len().into()))?;
        }
        Ok(head)
    }

    fn uri(&self, path: &str) -> Result<Uri, String> {
        if !path.starts_with('/') {
            return Err("the path does not begin with /".to_string());
        }
        let path = PathAndQuery::try_from(path).map_err(|_| "the path is no path")?;
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|_| "the path is no path".to_string())
    }
}

fn append(
    fields: &mut HeaderMap,
    (name, value): (HeaderName, HeaderValue),
) -> Result<(), &'static str> {
    let added = fields.try_append(name, value);
    added.map_err(|_| "there are too many fields").map(|_| ())
}

fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let parsed = parsed.map_err(|_| format!("`{}` names no field", name.escape_debug()))?;
    let value = HeaderValue::from_str(value);
    let mut value = value.map_err(|_| format!("the value of `{parsed}` cannot be written"))?;
    value.set_sensitive(parsed == AUTHORIZATION);
    Ok((parsed, value))
}

/// What was answered.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Http2Answer {
    /// 200 to 999.
    pub status: u16,
    pub fields: Fields,
    /// As much of the body as was kept.
    pub body: Vec<u8>,
    /// Whether the body came to its end and was kept whole. Without, the status still holds.
    pub whole: bool,
}

impl fmt::Debug for Http2Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, bytes, whole) = (self.status, self.body.len(), self.whole);
        write!(f, "{status} with {bytes} bytes, whole: {whole}")
    }
}

/// What a client asked, as a server has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Http2Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authority: Option<String>,
    pub fields: Fields,
    /// As much of the body as was kept.
    pub body: Vec<u8>,
    /// Whether that is all of it.
    pub whole: bool,
}

impl fmt::Debug for Http2Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes", self.method, self.body.len())
    }
}

/// What a server answers.
#[derive(Clone)]
pub struct Http2Reply<'a> {
    /// 200 to 999.
    pub status: u16,
    pub fields: &'a [(&'a str, &'a str)],
    /// Its length is said in `content-length`.
    pub body: Bytes,
}

impl Http2Reply<'_> {
    /// `None` when it cannot be written: a status or a field that is none.
    pub fn head(&self) -> Option<http::Response<()>> {
        let mut head = http::Response::builder().status(self.status);
        if !self.body.is_empty() {
            head = head.header(CONTENT_LENGTH, self.body.len());
        }
        for (name, value) in self.fields {
            head = head.header(*name, *value);
        }
        head.body(()).ok()
    }
}

/// The fields of a request or an answer; names are in small letters.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(HeaderMap);

impl Fields {
    pub fn new(fields: HeaderMap) -> Fields {
        Fields(fields)
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.get_all(name).into_iter().map(HeaderValue::as_bytes)
    }

    /// The value, if the field is there once.
    pub fn only(&self, name: &str) -> Option<&[u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// In no particular order, but always in the same.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let fields = self.0.iter();
        fields.map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Http2Origin {
        Http2Origin::new(true, "push.example:8443").expect("an authority")
    }

    fn request<'a>(
        method: &'a str,
        path: &'a str,
        fields: &'a [(&'a str, &'a str)],
    ) -> Http2Request<'a> {
        let body = Bytes::from_static(b"{}");
        Http2Request {
            method,
            path,
            common: None,
            fields,
            body,
        }
    }

    #[test]
    fn a_head_says_where_and_how_long() {
        let fields = [("Authorization", "bearer x"), ("apns-topic", "a.b")];
        let head = origin().head(&request("POST", "/3/device/ab?c", &fields));
        let head = head.expect("a request");
        assert_eq!(
            head.uri().to_string(),
            "https://push.example:8443/3/device/ab?c"
        );
        let value = |name: &str| head.headers().get(name).expect("a field").clone();
        assert!(value("authorization").is_sensitive());
        assert!(!value("apns-topic").is_sensitive());
        assert_eq!(value("content-length"), "2");
    }

    #[test]
    fn what_is_common_comes_first_and_a_requests_own_fields_enter_no_table() {
        let common = [("authorization", "bearer x"), ("apns-topic", "a.b")];
        let common = CommonFields::new(&common).expect("fields");
        let own = [("apns-id", "1"), ("apns-topic", "c")];
        let asked = Http2Request {
            common: Some(&common),
            ..request("POST", "/", &own)
        };
        let head = origin().head(&asked).expect("a request");
        let shown: Vec<(&str, &str, bool)> = head
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str(),
                    value.to_str().expect("text"),
                    value.is_sensitive(),
                )
            })
            .collect();
        let expected = [
            ("authorization", "bearer x", true),
            ("apns-topic", "a.b", false),
            ("apns-topic", "c", true),
            ("apns-id", "1", true),
            ("content-length", "2", false),
        ];
        assert_eq!(shown, expected);
        assert!(CommonFields::new(&[("a b", "c")]).is_err());
    }

    #[test]
    fn a_length_that_was_given_stands() {
        let fields = [("content-length", "2")];
        let head = origin()
            .head(&request("POST", "/", &fields))
            .expect("a request");
        assert_eq!(head.headers().get_all("content-length").iter().count(), 1);
        let empty = Http2Request {
            body: Bytes::new(),
            ..request("GET", "/", &[])
        };
        let head = origin().head(&empty).expect("a request");
        assert!(head.headers().is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_refused_without_being_repeated() {
        let long = "x".repeat(70_000);
        let refused = |method, path, fields: &[(&str, &str)]| {
            let refused = origin().head(&request(method, path, fields));
            let why = refused.expect_err(path);
            assert!(!why.contains("secret") && why.len() < 80, "{why}");
        };
        refused("CONNECT", "/", &[]);
        refused("PO ST", "/", &[]);
        refused("POST", "3/device", &[]);
        refused("POST", "/a b", &[]);
        refused("POST", &long, &[]);
        refused("POST", "/", &[("a b", "c")]);
        refused("POST", "/", &[("a", "secret\r\nb: c")]);
        for authority in ["", "a b", "user@host", "host/path"] {
            assert!(Http2Origin::new(true, authority).is_err(), "{authority}");
        }
    }

    #[test]
    fn an_answer_is_not_printed() {
        let mut fields = HeaderMap::new();
        fields.append("retry-after", HeaderValue::from_static("7"));
        let (body, whole) = (b"access_token".to_vec(), true);
        let fields = Fields::new(fields);
        assert_eq!(fields.only("retry-after"), Some(&b"7"[..]));
        assert_eq!(fields.only("apns-id"), None);
        let answer = Http2Answer {
            status: 200,
            fields,
            body,
            whole,
        };
        assert_eq!(format!("{answer:?}"), "200 with 12 bytes, whole: true");
    }
}
