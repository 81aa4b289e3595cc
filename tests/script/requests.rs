//! Calls of the HTTP API as a transcript makes them: signed as an SDK would, unless a line before
//! asked for a signature with something wrong.

use lineman::wire::sign::md5_hex;

use super::notation::pairs;
use crate::world::KEY;
use crate::world::client::signature;

/// How the next request is to be signed.
#[derive(Default)]
pub struct Signing(Vec<(String, String)>);

impl Signing {
    /// `none`, `bearer=SECRET`, `without=PARAMETER`, or any parameter with its value.
    pub fn new(text: &str) -> Signing {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Signing(pairs(text).map(owned).collect())
    }

    fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn parameter(&self, name: &str, default: String) -> Option<(String, String)> {
        if self.value("without") == Some(name) {
            return None;
        }
        let value = self.value(name).map_or(default, str::to_owned);
        Some((name.to_owned(), value))
    }
}

/// The bytes of `METHOD PATH [BODY]`.
pub fn request(line: &str, signing: &Signing, unix_seconds: i64) -> Result<Vec<u8>, String> {
    let mut parts = line.splitn(3, ' ');
    let method = parts.next().unwrap_or("");
    let target = parts.next().ok_or("METHOD PATH [BODY]")?;
    let body = parts.next().unwrap_or("");
    let target = signed(method, target, body, signing, unix_seconds)?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    if let Some(secret) = signing.value("bearer") {
        head.push_str(&format!("Authorization: Bearer {secret}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    Ok(format!("{head}\r\n{body}").into_bytes())
}

/// The target with the parameters of a signature added.
fn signed(
    method: &str,
    target: &str,
    body: &str,
    signing: &Signing,
    unix_seconds: i64,
) -> Result<String, String> {
    if !(target.starts_with("/apps") || target.starts_with("/users"))
        || signing.0.iter().any(|(k, _)| k == "none" || k == "bearer")
    {
        return Ok(target.to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut parameters: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let timestamp = match signing.value("auth_timestamp") {
        Some(shift) => unix_seconds + shift.parse::<i64>().map_err(|_| "auth_timestamp=-600")?,
        None => unix_seconds,
    };
    parameters.extend(signing.parameter("auth_key", KEY.to_owned()));
    if signing.value("without") != Some("auth_timestamp") {
        parameters.push(("auth_timestamp".to_owned(), timestamp.to_string()));
    }
    parameters.extend(signing.parameter("auth_version", "1.0".to_owned()));
    if !body.is_empty() || signing.value("body_md5").is_some() {
        parameters.extend(signing.parameter("body_md5", md5_hex(body.as_bytes())));
    }
    parameters.sort();
    let joined: Vec<String> = parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let joined = joined.join("&");
    let text = format!("{method}\n{path}\n{joined}");
    let signature = signing.parameter("auth_signature", signature(&text));
    let signature = signature.map_or_else(String::new, |(k, v)| format!("&{k}={v}"));
    Ok(format!("{path}?{joined}{signature}"))
}
