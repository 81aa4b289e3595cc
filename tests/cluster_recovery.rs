//! History in a cluster: real servers and a real Redis. A client goes on at whatever server it comes
//! to, and whatever died meanwhile, it has every event once and in order, or is told.

#[path = "support/reader.rs"]
mod reader;
#[path = "support/redis.rs"]
mod redis;
mod support;
#[path = "support/talker.rs"]
mod talker;

use reader::Client;
use redis::Redis;
use serde_json::{Value, json};
use support::{Server, get, pid_of, processes, wait_until};
use talker::call;

const ROOM: &str = "kept-room";

/// One server of the cluster.
struct Node {
    server: Server,
    http: String,
}

impl Node {
    fn start(redis: &Redis) -> Node {
        let server = Server::start(&format!(
            "workers = 2\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n\
             [[listen]]\nurl = \"http://127.0.0.1:0\"\n\
             [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
             [[apps.history]]\npattern = \"kept-*\"\nevents = 10\n\
             [cluster]\nredis_url = \"{}\"\nlease_seconds = 6\n",
            redis.url()
        ));
        let http = server.address(1);
        let node = Node { server, http };
        node.wait_for("joined");
        node
    }

    /// Until `/readyz` says so of the cluster.
    fn wait_for(&self, state: &str) {
        let words = format!("\"cluster\":\"{state}\"");
        wait_until(&format!("the server is {state}"), || {
            get(&self.http, "/readyz")
                .is_ok_and(|(code, body)| code == 200 && body.contains(&words))
        });
    }

    fn client(&self) -> Client {
        Client::connect(&self.server.address(0))
    }

    /// Publishes until it is taken; the answer.
    fn publish(&self, data: u64) -> Value {
        let body = json!({"name": "e", "channel": ROOM, "data": data.to_string(),
                          "info": "offset"});
        let mut answer = Value::Null;
        wait_until("the event is taken", || {
            let called = call(&self.http, "POST", "events", &body.to_string());
            let (code, body) = called.expect("an answer");
            answer = body;
            code == 200
        });
        answer
    }

    fn offset_of(&self, data: u64) -> u64 {
        let answer = self.publish(data);
        let offset = answer["channels"][ROOM]["offset"].as_u64();
        offset.unwrap_or_else(|| panic!("no offset: {answer}"))
    }
}

/// The next event is this one, in the place of its number.
fn expect(client: &mut Client, number: u64) -> Value {
    let event = client.next();
    assert_eq!(event["event"], "e", "{event}");
    assert_eq!(event["data"], number.to_string(), "{event}");
    assert_eq!(event["offset"], number, "{event}");
    event
}

#[test]
fn a_client_goes_on_at_another_server_and_all_see_one_order() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let (mut here, mut there) = (a.client(), b.client());
    let begin = here.subscribe(ROOM, None);
    assert_eq!(begin["offset"], 0, "{begin}");
    assert_eq!(there.subscribe(ROOM, None)["epoch"], begin["epoch"]);
    // By turns, without waiting for one to be seen.
    for number in 1..=6 {
        let node = if number % 2 == 0 { &a } else { &b };
        assert_eq!(node.offset_of(number), number);
    }
    let mut last = Value::Null;
    for number in 1..=6 {
        last = expect(&mut here, number);
        expect(&mut there, number);
    }
    assert_eq!(last["epoch"], begin["epoch"]);
    drop((here, there));
    for number in 7..=9 {
        assert_eq!(b.offset_of(number), number, "nobody follows it any more");
    }
    let mut back = b.client();
    let success = back.subscribe(ROOM, Some(&last));
    assert_eq!(
        (&success["recovered"], &success["missed"]),
        (&json!(true), &json!(3)),
        "{success}"
    );
    for number in 7..=9 {
        expect(&mut back, number);
    }
    // A page, at a server that does not follow the channel; what its rule does not keep is gone.
    a.publish(10);
    a.publish(11);
    let path = format!("channels/{ROOM}/history?limit=2");
    let (code, page) = call(&a.http, "GET", &path, "").expect("an answer");
    assert_eq!((code, &page["offset"]), (200, &json!(11)), "{page}");
    assert_eq!(page["events"][1]["data"], "11", "{page}");
    let epoch = page["epoch"].as_str().expect("an epoch");
    let path = format!("channels/{ROOM}/history?epoch={epoch}&after=0");
    let (code, _) = call(&a.http, "GET", &path, "").expect("an answer");
    assert_eq!(code, 410, "the first is gone");
    let success = a.client().subscribe(ROOM, Some(&begin));
    assert_eq!(success["recovered"], false, "{success}");
}

#[test]
fn who_stays_connected_misses_nothing_while_the_switchboard_dies() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let mut client = a.client();
    client.subscribe(ROOM, None);
    for number in 1..=2 {
        b.publish(number);
        expect(&mut client, number);
    }
    let switchboard = pid_of(processes(&a.server.status(), "switchboard")[0]);
    a.server.kill(switchboard, 9);
    for number in 3..=8 {
        b.publish(number);
    }
    for number in 3..=8 {
        expect(&mut client, number);
    }
    wait_until("another switchboard is there", || {
        let status = a.server.status();
        let there = processes(&status, "switchboard");
        there.first().is_some_and(|it| pid_of(it) != switchboard)
    });
    a.publish(9);
    expect(&mut client, 9);
}

#[test]
fn what_came_while_redis_was_silent_or_away_is_caught_up_with_its_return() {
    let mut redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let (mut here, mut there) = (a.client(), b.client());
    let begin = here.subscribe(ROOM, None);
    there.subscribe(ROOM, None);
    for number in 1..=3 {
        a.publish(number);
        expect(&mut here, number);
        expect(&mut there, number);
    }
    // Silent: this one is on its way, and nobody can say how far it came.
    redis.signal(19);
    let answer = a.publish(4);
    assert_eq!(answer["cluster"], "local", "{answer}");
    redis.signal(18);
    for node in [&a, &b] {
        node.wait_for("joined");
    }
    for client in [&mut here, &mut there] {
        expect(client, 4);
    }
    // Away: events come without a position, here only.
    redis.kill();
    for node in [&a, &b] {
        node.wait_for("away");
    }
    let answer = a.publish(100);
    assert_eq!(answer["cluster"], "local", "{answer}");
    let event = here.next();
    assert_eq!(
        (&event["data"], &event["epoch"]),
        (&json!("100"), &Value::Null)
    );
    redis.run();
    for node in [&a, &b] {
        node.wait_for("joined");
    }
    b.publish(5);
    for client in [&mut here, &mut there] {
        let event = expect(client, 5);
        assert_eq!(event["epoch"], begin["epoch"]);
    }
    // Empty: another epoch says that old positions mean nothing.
    redis.kill_and_empty();
    for node in [&a, &b] {
        node.wait_for("away");
    }
    redis.run();
    for node in [&a, &b] {
        node.wait_for("joined");
    }
    b.publish(1);
    for client in [&mut here, &mut there] {
        let event = expect(client, 1);
        assert_ne!(event["epoch"], begin["epoch"]);
    }
}

#[test]
fn a_server_that_is_lost_costs_its_clients_nothing_elsewhere() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let mut client = a.client();
    client.subscribe(ROOM, None);
    b.publish(1);
    let first = expect(&mut client, 1);
    a.server.kill(a.server.pid(), 9);
    for number in 2..=4 {
        b.publish(number);
    }
    let mut client = b.client();
    let success = client.subscribe(ROOM, Some(&first));
    assert_eq!(success["missed"], 3, "{success}");
    for number in 2..=4 {
        expect(&mut client, number);
    }
}
