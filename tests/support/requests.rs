//! HTTP as tests of the whole program speak it by hand, each request on a connection of its own, and
//! what they ask the server beside.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::{PATIENCE, Server, publish_call};

/// Sends a request on a connection of its own; its answer's code, fields and, as far as it has come,
/// body.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    fields: &str,
    body: &str,
) -> (u16, String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(answer.read_line(&mut head).expect("a head"), 0, "{head}");
    }
    let code = head[9..12].parse().expect("a code");
    (code, head, answer)
}

/// The whole of an answer that has a length.
pub fn answer(address: &str, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
    let (code, head, mut rest) = request(address, method, path, fields, body);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    rest.read_exact(&mut body).expect("a whole body");
    (code, String::from_utf8(body).expect("text"))
}

/// As the demo app's backend signs.
pub fn signed(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"demo-secret");
    data_encoding::HEXLOWER.encode(hmac::sign(&key, text.as_bytes()).as_ref())
}

/// An event `news` through the HTTP API, on a connection of its own.
pub fn publish(server: &Server, channel: &str, data: &str) {
    let body = json!({"name": "news", "channel": channel, "data": data}).to_string();
    let mut stream = TcpStream::connect(server.address(0)).expect("the server listens");
    let call = publish_call("Connection: close\r\n", &body);
    stream.write_all(call.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The pids of those who hold connections with this protocol and state.
pub fn holders(server: &Server, protocol: &str, status: &str) -> Vec<u64> {
    let output = server
        .place
        .run(&["connections", "--json", "--limit", "1000"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all = told["connections"].as_array().expect("a list").iter();
    let those = all.filter(|row| row["protocol"] == protocol && row["status"] == status);
    those
        .map(|row| row["pid"].as_u64().expect("a pid"))
        .collect()
}
