//! a2 in one thread: PORT DIR COUNT STREAMS KEY_ID TEAM_ID TOPIC, see ../../peers.rs. Its host
//! and the authorities that it trusts are constants, which `a2.patch` takes from the environment.

use std::cell::Cell;
use std::fs::{self, File};
use std::rc::Rc;
use std::time::Instant;

use a2::{
    Client, ClientConfig, DefaultNotificationBuilder, Endpoint, NotificationBuilder,
    NotificationOptions, Priority, PushType,
};
use tokio::task::LocalSet;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let dir = &words[2];
    let (count, streams): (usize, usize) = (number(&words[3]), number(&words[4]));
    let key = File::open(format!("{dir}/key.p8")).expect("a key");
    let config = ClientConfig::new(Endpoint::Production);
    let client = Client::token(key, &words[5], &words[6], config).expect("a client");
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
    client.send(note).await.expect("an answer of 200");
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
