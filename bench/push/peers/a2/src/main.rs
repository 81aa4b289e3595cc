//! a2's notifications over the client that it is built on, in one thread: PORT DIR COUNT STREAMS KEY_ID
//! TEAM_ID TOPIC, see ../../peers.rs. a2's own `Client` has Apple's host and the web's authorities as
//! constants; here hyper is set up as it does that, with TCP_NODELAY and a pass that is there already.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use a2::request::payload::PayloadLike;
use a2::{
    DefaultNotificationBuilder, NotificationBuilder, NotificationOptions, Priority, PushType,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// a2's default.
const WITHIN: Duration = Duration::from_secs(20);
/// Of a pass that ES256 signed, in bytes.
const PASS_BYTES: usize = 187;

#[derive(Clone)]
struct Client {
    hyper: Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>,
    origin: Rc<str>,
    pass: Rc<str>,
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let dir = &words[2];
    let (count, streams): (usize, usize) = (number(&words[3]), number(&words[4]));
    let client = client(&words[1], &format!("{dir}/ca.pem"));
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    let warm = streams * 2;
    let topic: Rc<str> = words[7].as_str().into();
    // One first, so that all go over its connection.
    runtime.block_on(send(&client, &topic, 0));
    LocalSet::new().block_on(&runtime, run(&client, &topic, 1..warm, streams));
    let (cpu, begun) = (cpu_nanos(), Instant::now());
    LocalSet::new().block_on(&runtime, run(&client, &topic, warm..count, streams));
    let (cpu, took) = (cpu_nanos() - cpu, begun.elapsed().as_nanos());
    let sent = count - warm;
    println!(r#"{{"sent":{sent},"warm":{warm},"cpu":{cpu},"took":{took}}}"#);
}

fn client(port: &str, authority: &str) -> Client {
    let pem = fs::read(authority).expect("an authority");
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut &pem[..]) {
        let certificate = certificate.expect("a certificate");
        roots.add(certificate).expect("an authority");
    }
    let tls = ClientConfig::builder().with_root_certificates(roots);
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls.with_no_client_auth())
        .https_only()
        .enable_http2()
        .wrap_connector(tcp);
    Client {
        hyper: { Hyper::builder(TokioExecutor::new()) }
            .http2_only(true)
            .build(connector),
        origin: format!("https://localhost:{port}").into(),
        pass: format!("Bearer {}", "p".repeat(PASS_BYTES)).into(),
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

async fn run(client: &Client, topic: &Rc<str>, all: std::ops::Range<usize>, streams: usize) {
    let next = Rc::new(Cell::new(all.start));
    let tasks = (0..streams).map(|_| {
        let (client, topic, next) = (client.clone(), Rc::clone(topic), Rc::clone(&next));
        tokio::task::spawn_local(async move {
            while next.get() < all.end {
                let nth = next.replace(next.get() + 1);
                send(&client, &topic, nth).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
}

async fn send(client: &Client, topic: &str, nth: usize) {
    let options = NotificationOptions {
        apns_topic: Some(topic),
        apns_push_type: Some(PushType::Alert),
        apns_priority: Some(Priority::High),
        ..Default::default()
    };
    let token = format!("{nth:064x}");
    let title = format!("Order {nth}");
    let note = DefaultNotificationBuilder::new()
        .set_title(&title)
        .set_body("Your order is ready to be collected at the counter.")
        .build(&token, options);
    let body = note.to_json_string().expect("a payload");
    let request = Request::post(format!("{}/3/device/{token}", client.origin))
        .header("content-type", "application/json")
        .header("apns-priority", "10")
        .header("apns-push-type", "alert")
        .header("apns-topic", topic)
        .header("authorization", &*client.pass)
        .header("content-length", body.len())
        .body(Full::from(body))
        .expect("a request");
    let answer = timeout(WITHIN, client.hyper.request(request)).await;
    let answer = answer.expect("in time").expect("an answer");
    assert_eq!(answer.status(), 200);
}

/// Of all threads.
fn cpu_nanos() -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("threads");
    let nanos = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("schedstat");
        let text = fs::read_to_string(path).expect("a thread's times");
        let first = text.split_whitespace().next().expect("its time");
        first.parse::<u64>().expect("a number")
    });
    nanos.sum()
}
