//! Several servers on one Redis: the real binaries and a real Redis. What one server is told counts
//! on all, and whoever dies or is away, every client's picture becomes true again.

#[path = "support/redis.rs"]
mod redis;
mod support;
#[path = "support/talker.rs"]
mod talker;

use redis::Redis;
use serde_json::{Value, json};
use support::{Server, get, wait_until};
use talker::{Talker, call, publish};

const ROOM: &str = "presence-room";
/// The shortest that is allowed.
const LEASE: &str = "lease_seconds = 6\n";

fn config(redis: &Redis, rest: &str) -> String {
    format!(
        "workers = 2\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n\
         [[listen]]\nurl = \"http://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
         subscription_counts = true\nwatchlists = true\n\
         [cluster]\nredis_url = \"{}\"\n{LEASE}{rest}",
        redis.url()
    )
}

/// One server of the cluster.
struct Node {
    server: Server,
    lines: String,
    http: String,
}

impl Node {
    fn start(redis: &Redis) -> Node {
        let node = Node::of(Server::start(&config(redis, "")));
        node.wait_for("joined");
        node
    }

    fn of(server: Server) -> Node {
        let (lines, http) = (server.address(0), server.address(1));
        Node {
            server,
            lines,
            http,
        }
    }

    /// Until `/readyz` says so of the cluster.
    fn wait_for(&self, state: &str) {
        let words = format!("\"cluster\":\"{state}\"");
        wait_until(&format!("the server is {state}"), || {
            get(&self.http, "/readyz")
                .is_ok_and(|(code, body)| code == 200 && body.contains(&words))
        });
    }

    fn client(&self) -> Talker {
        Talker::connect(&self.lines)
    }

    /// Publishes; the answer's body.
    fn publish(&self, channel: &str, data: &str) -> Value {
        let (code, body) = publish(&self.http, channel, data).expect("an answer");
        assert_eq!(code, 200, "{body}");
        body
    }

    fn read(&self, path: &str) -> Value {
        let (code, body) = call(&self.http, "GET", path, "").expect("an answer");
        assert_eq!(code, 200, "{body}");
        body
    }
}

/// Ann at the one and bob at the other, in a room where she has seen him.
fn together(a: &Node, b: &Node) -> (Talker, Talker) {
    let (mut ann, mut bob) = (a.client(), b.client());
    ann.join(ROOM, "ann");
    bob.join(ROOM, "bob");
    wait_until("ann sees bob", || ann.present(ROOM) == ["ann", "bob"]);
    (ann, bob)
}

#[test]
fn an_event_published_at_one_server_reaches_subscribers_of_all() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let (mut here, mut there) = (a.client(), b.client());
    here.subscribe("news");
    there.subscribe("news");
    for number in 0..50 {
        assert_eq!(a.publish("news", &number.to_string()), json!({}));
    }
    for client in [&here, &there] {
        wait_until("all events came", || client.count("e") == 50);
        let heard = client.heard();
        let events = heard.iter().filter(|event| event["event"] == "e");
        let numbers: Vec<String> = events
            .map(|it| it["data"].as_str().unwrap().into())
            .collect();
        let expected: Vec<String> = (0..50).map(|it| it.to_string()).collect();
        assert_eq!(numbers, expected, "once, and in order");
    }
    // The publisher's own connection is left out wherever it is.
    let body = json!({"name": "x", "channels": ["news"], "data": "x",
                      "socket_id": there.socket_id});
    let (code, _) = call(&a.http, "POST", "events", &body.to_string()).expect("an answer");
    assert_eq!(code, 200);
    here.event("x", "news");
    a.publish("news", "last");
    wait_until("the last came", || there.count("e") == 51);
    assert_eq!(there.count("x"), 0);
    // Client events too.
    here.enter("private-talk");
    there.enter("private-talk");
    here.say(&json!({"event": "client-hi", "channel": "private-talk", "data": {"a": 1}}));
    assert_eq!(there.event("client-hi", "private-talk"), json!({"a": 1}));
}

#[test]
fn presence_is_one_truth_over_all_servers() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let mut ann = a.client();
    assert_eq!(ann.join(ROOM, "ann"), ["ann"]);
    let mut bob = b.client();
    assert_eq!(bob.join(ROOM, "bob"), ["ann", "bob"]);
    wait_until("ann sees bob", || ann.present(ROOM) == ["ann", "bob"]);
    // A second connection of the same user, elsewhere, is no news; nor is the end of the first.
    let mut again = b.client();
    assert_eq!(again.join(ROOM, "ann"), ["ann", "bob"]);
    drop(ann);
    let mut eve = a.client();
    assert_eq!(eve.join(ROOM, "eve"), ["ann", "bob", "eve"]);
    wait_until("bob sees eve", || {
        bob.present(ROOM) == ["ann", "bob", "eve"]
    });
    drop(again);
    for client in [&eve, &bob] {
        wait_until("ann is gone", || client.present(ROOM) == ["bob", "eve"]);
    }
    assert_eq!(bob.count("pusher_internal:member_removed"), 1);
    for node in [&a, &b] {
        let users = node.read(&format!("channels/{ROOM}/users"));
        assert_eq!(users, json!({"users": [{"id": "bob"}, {"id": "eve"}]}));
    }
}

#[test]
fn counts_and_reads_are_about_the_whole_cluster() {
    let redis = Redis::start();
    let (a, b, c) = (
        Node::start(&redis),
        Node::start(&redis),
        Node::start(&redis),
    );
    let (mut one, mut two) = (a.client(), b.client());
    let mut three = b.client();
    one.subscribe("news");
    two.subscribe("news");
    three.subscribe("news");
    three.join(ROOM, "u");
    // The third server has nobody of its own there, and asks.
    for node in [&a, &b, &c] {
        let what = "channels/news?info=subscription_count";
        wait_until("the count is right", || {
            node.read(what) == json!({"occupied": true, "subscription_count": 3})
        });
        let list = node.read("channels?filter_by_prefix=presence-&info=user_count");
        assert_eq!(list, json!({"channels": {ROOM: {"user_count": 1}}}));
    }
    let last = |client: &Talker| {
        let heard = client.heard();
        let counts = heard.iter().rev();
        let mut counts = counts.filter(|it| it["event"] == "pusher_internal:subscription_count");
        counts.next().map(talker::data_of)
    };
    for client in [&one, &two] {
        let expected = json!({"subscription_count": 3});
        wait_until("subscribers are told", || {
            last(client) == Some(expected.clone())
        });
    }
    let body = json!({"name": "e", "channels": ["news", "empty"], "data": "x",
                      "info": "subscription_count"});
    let (_, body) = call(&c.http, "POST", "events", &body.to_string()).expect("an answer");
    let counts = json!({"news": {"subscription_count": 3}, "empty": {"subscription_count": 0}});
    assert_eq!(body, json!({"channels": counts}));
    drop((one, two, three));
    wait_until("nobody is left", || {
        c.read("channels") == json!({"channels": {}})
    });
    wait_until("Redis holds nothing of channels", || {
        ["channel:", "members:", "users:", "app:"]
            .iter()
            .all(|kind| redis.keys(&format!("lineman:{kind}*")).is_empty())
    });
}

#[test]
fn users_are_reached_watched_and_sent_away_wherever_they_are() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let mut watcher = a.client();
    watcher.sign_in("ann", &["bob"]);
    let mut bob = b.client();
    bob.sign_in("bob", &[]);
    let online = |name: &'static str| {
        move |event: &Value| {
            let events = &talker::data_of(event)["events"];
            event["event"] == "pusher_internal:watchlist_events"
                && events.as_array().is_some_and(|it| {
                    it.iter()
                        .any(|it| it["name"] == name && it["user_ids"] == json!(["bob"]))
                })
        }
    };
    watcher.find("bob is online", online("online"));
    // A watcher who comes later is told how it is.
    let mut later = a.client();
    later.sign_in("eve", &["bob"]);
    later.find("bob is online", online("online"));
    assert_eq!(a.publish("#server-to-user-bob", "psst"), json!({}));
    bob.find("the event to him", |event| {
        event["event"] == "e" && event["data"] == "psst"
    });
    let path = "users/bob/terminate_connections";
    let (code, _) = call(&a.http, "POST", path, "{}").expect("an answer");
    assert_eq!(code, 200);
    bob.find("his end", |event| event["event"] == "end");
    watcher.find("bob is offline", online("offline"));
}

#[test]
fn the_last_event_of_a_cache_channel_is_the_same_everywhere() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    a.publish("cache-a", "1");
    let mut client = b.client();
    client.subscribe("cache-a");
    assert_eq!(client.event("e", "cache-a"), json!(1));
    b.publish("cache-a", "2");
    let mut other = a.client();
    other.subscribe("cache-a");
    assert_eq!(other.event("e", "cache-a"), json!(2));
    for node in [&a, &b] {
        let read = node.read("channels/cache-a?info=cache");
        assert_eq!(read["cache"]["data"], "2", "{read}");
    }
    let seen = a.read("channels/cache-empty?info=cache");
    assert_eq!(seen, json!({"occupied": false, "cache": null}));
}

#[test]
fn a_server_that_is_killed_is_forgotten_with_its_users() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let (mut ann, mut bob) = (a.client(), b.client());
    ann.join(ROOM, "ann");
    ann.subscribe("news");
    bob.join(ROOM, "bob");
    bob.sign_in("bob", &[]);
    wait_until("ann sees bob", || ann.present(ROOM) == ["ann", "bob"]);
    drop(b);
    wait_until("bob is gone", || ann.present(ROOM) == ["ann"]);
    let mut late = a.client();
    assert_eq!(late.join(ROOM, "late"), ["ann", "late"]);
    let list = json!({"channels": {"news": {"subscription_count": 1},
                                   ROOM: {"subscription_count": 2}}});
    assert_eq!(a.read("channels?info=subscription_count"), list);
    wait_until("Redis knows one server", || {
        redis.keys("lineman:channels:*").len() == 1
    });
    assert_eq!(redis.keys("lineman:members:*").len(), 1);
}

#[test]
fn a_server_that_stood_still_for_longer_than_its_lease_joins_again() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let (mut ann, bob) = together(&a, &b);
    let status = b.server.status();
    let all = status["processes"].as_array().expect("processes");
    let pids: Vec<u32> = all.iter().map(support::pid_of).collect();
    // The master first, so that it does not miss its children.
    pids.iter().for_each(|pid| support::kill(*pid, 19));
    wait_until("bob is gone", || ann.present(ROOM) == ["ann"]);
    ann.unsubscribe(ROOM);
    let mut eve = a.client();
    eve.join(ROOM, "eve");
    pids.iter().rev().for_each(|pid| support::kill(*pid, 18));
    wait_until("bob is back", || eve.present(ROOM) == ["bob", "eve"]);
    wait_until("bob knows who came and went", || {
        bob.present(ROOM) == ["bob", "eve"]
    });
    assert_eq!(a.publish("news", "x"), json!({}));
    b.wait_for("joined");
    assert_eq!(b.publish(ROOM, "y"), json!({}));
    eve.find("y", |event| event["data"] == "y");
}

/// What every outage has in common: local service goes on, and afterwards all is true again.
fn outage(redis: &mut Redis, begin: impl Fn(&mut Redis), end: impl Fn(&mut Redis)) {
    let (a, b) = (Node::start(redis), Node::start(redis));
    let (mut ann, mut bob, mut here) = (a.client(), b.client(), a.client());
    ann.join(ROOM, "ann");
    bob.join(ROOM, "bob");
    here.subscribe("news");
    let mut there = b.client();
    there.subscribe("news");
    let mut leaver = b.client();
    leaver.join(ROOM, "leaver");
    wait_until("all are there", || {
        ann.present(ROOM) == ["ann", "bob", "leaver"]
    });
    begin(redis);
    wait_until("the publisher is told", || {
        a.publish("news", "tried") == json!({"cluster": "local"})
    });
    for node in [&a, &b] {
        node.wait_for("away");
    }
    // Others are believed in for a while; what happens here is told at once.
    let mut eve = a.client();
    assert_eq!(eve.join(ROOM, "eve"), ["ann", "bob", "eve", "leaver"]);
    drop(leaver);
    assert_eq!(a.publish("news", "outage"), json!({"cluster": "local"}));
    here.find("the event", |event| event["data"] == "outage");
    wait_until("bob sees the leaver go", || {
        !bob.present(ROOM).contains(&"leaver".to_string())
    });
    end(redis);
    for node in [&a, &b] {
        node.wait_for("joined");
    }
    for client in [&ann, &bob, &eve] {
        wait_until("the rooms are one again", || {
            client.present(ROOM) == ["ann", "bob", "eve"]
        });
    }
    wait_until("counts are those of both", || {
        a.read("channels/news?info=subscription_count")["subscription_count"] == 2
    });
    assert_eq!(a.publish("news", "healed"), json!({}));
    for client in [&here, &there] {
        client.find("an event", |event| event["data"] == "healed");
        for data in ["outage", "healed"] {
            let heard = client.heard();
            let events = heard.iter().filter(|event| event["data"] == data);
            let expected = usize::from(data == "healed" || std::ptr::eq(client, &here));
            assert_eq!(events.count(), expected, "{data}");
        }
    }
}

#[test]
fn a_redis_that_is_restarted_with_its_data_is_an_outage_that_heals() {
    outage(&mut Redis::start(), Redis::kill, Redis::run);
}

#[test]
fn a_redis_that_comes_back_empty_is_filled_again() {
    outage(&mut Redis::start(), Redis::kill_and_empty, Redis::run);
}

#[test]
fn a_redis_that_stands_still_is_as_good_as_gone() {
    let (stop, go_on) = (19, 18);
    outage(
        &mut Redis::start(),
        |redis| redis.signal(stop),
        |redis| redis.signal(go_on),
    );
}

#[test]
fn without_redis_others_are_forgotten_after_the_lease() {
    let mut redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let (ann, bob) = together(&a, &b);
    redis.kill();
    for (client, alone) in [(&ann, "ann"), (&bob, "bob")] {
        wait_until("the other is gone", || client.present(ROOM) == [alone]);
    }
    redis.run();
    for client in [&ann, &bob] {
        wait_until("both are back", || client.present(ROOM) == ["ann", "bob"]);
    }
}

#[test]
fn a_server_starts_without_redis_and_joins_when_it_is_there() {
    let mut redis = Redis::with_password(Some("tiger"));
    redis.kill();
    let text = config(&redis, "user = \"default\"\npassword = \"tiger\"\n");
    let a = Node::of(Server::start(&text));
    a.wait_for("away");
    let mut client = a.client();
    client.subscribe("news");
    assert_eq!(a.publish("news", "alone"), json!({"cluster": "local"}));
    redis.run();
    a.wait_for("joined");
    assert_eq!(a.publish("news", "together"), json!({}));
    wait_until("both came", || client.count("e") == 2);
    // One who does not know the password serves its own clients, and says why it is alone.
    let stranger = Node::of(Server::start(&config(&redis, "password = \"lion\"\n")));
    wait_until("the log says why", || {
        stranger.server.stderr().contains("WRONGPASS")
    });
    assert!(!stranger.server.stderr().contains("lion"));
    stranger.wait_for("away");
}

#[test]
fn workers_and_switchboards_are_replaced_while_the_cluster_goes_on() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    let (ann, bob) = together(&a, &b);
    let status = b.server.status();
    let switchboard = support::pid_of(support::processes(&status, "switchboard")[0]);
    support::kill(switchboard, 9);
    wait_until("there is another", || {
        let status = b.server.status();
        let now = support::pid_of(support::processes(&status, "switchboard")[0]);
        now != switchboard && now != 0
    });
    b.wait_for("joined");
    let mut eve = b.client();
    assert_eq!(eve.join(ROOM, "eve"), ["ann", "bob", "eve"]);
    wait_until("ann sees eve", || {
        ann.present(ROOM) == ["ann", "bob", "eve"]
    });
    for client in [&ann, &bob] {
        let left = client.count("pusher_internal:member_removed");
        assert_eq!(left, 0, "nobody left");
    }
    drop(bob);
    // The switchboard that died left him in Redis, until its lease runs out.
    wait_until("bob is gone", || ann.present(ROOM) == ["ann", "eve"]);
}
