//! The courier's part of the registry, played by hand against the store's own SQLite in memory: when
//! calls are answered, what keys that do not fit cost, and that a rotation outlives its courier.

use lineman::app::apps::Apps;
use lineman::base::dice::Dice;
use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::node::courier::{Courier, CourierOptions, DeviceOptions};
use lineman::node::{Node, Origin};
use lineman::push::devices::token_key::{KeyId, TokenKey};
use lineman::push::devices::vault::{Binding, TokenVault};
use lineman::push::facts::{StoreReply, StoreRequest};
use lineman::store::sqlite::InMemory;
use lineman::wire::control::{Order, Report as ToMaster};
use lineman::wire::courier_bus::{Receipt, Report, VERSION};
use lineman::wire::gateway::GatewayCall;

use crate::hand::Hand;

struct Post {
    hand: Hand<Courier>,
    master: ConnId,
    link: ConnId,
    file: InMemory,
}

fn key(name: &str, word: &str) -> TokenKey {
    let text = data_encoding::BASE64.encode(format!("{word:>32}").as_bytes());
    TokenKey::parse(KeyId::parse(name).expect("an id"), &text).expect("a key")
}

fn database() -> InMemory {
    InMemory::open().expect("SQLite")
}

/// With a fresh switchboard before it.
fn post(file: InMemory, current: TokenKey, older: Vec<TokenKey>, life: u64) -> Post {
    let vault = TokenVault::new(current, older, Binding::Row, &mut Dice::new([3; 16]));
    let mut hand = Hand::new(Courier::new(CourierOptions {
        webhooks: Vec::new(),
        apps: Apps::new(Vec::new()),
        limits: Limits::default(),
        in_cluster: false,
        sending: Default::default(),
        devices: Some(DeviceOptions {
            vault: vault.expect("a vault"),
            keep_ms: 1_000,
        }),
        // Another one in each life, as the system's entropy is.
        seed: [life as u8; 16],
    }));
    let master = hand.open(Origin::Master);
    let link = hand.open(Origin::Link);
    let mut post = Post {
        hand,
        master,
        link,
        file,
    };
    let version = VERSION;
    post.hear(&Report::Calls { version });
    assert_eq!(post.hand.node.store_request(), Some(StoreRequest::Load));
    let loaded = post.file.answer(&StoreRequest::Load);
    post.reply(loaded);
    post
}

impl Post {
    fn hear(&mut self, report: &Report<'_>) {
        self.hand.receive(self.link, &report.encode());
    }

    fn reply(&mut self, reply: StoreReply) {
        let now = self.hand.now;
        self.hand.node.stored(reply, now);
        self.hand.pass(std::time::Duration::ZERO);
    }

    /// Does one commit, if one is wanted.
    fn store(&mut self) -> bool {
        let Some(request @ StoreRequest::Commit(_)) = self.hand.node.store_request() else {
            return false;
        };
        let done = self.file.answer(&request);
        self.reply(done);
        true
    }

    fn settle(&mut self) {
        while self.store() {}
    }

    fn call(&mut self, ticket: u64, method: &str, segments: &[&str], body: &str) {
        let call = call(method, segments, body);
        self.hear(&Report::Call { ticket, call });
    }

    /// The answers to calls: ticket, status, body.
    fn answers(&mut self) -> Vec<(u64, u16, String)> {
        let frames = self.hand.take_frames(self.link);
        let read = |frame: &Vec<u8>| match Receipt::decode(frame).expect("a receipt") {
            Receipt::Answer { ticket, answer } => {
                Some((ticket, answer.status, answer.body.to_string()))
            }
            _ => None,
        };
        frames.iter().filter_map(read).collect()
    }

    fn told_master(&mut self) -> Vec<ToMaster> {
        let frames = self.hand.take_frames(self.master);
        let read = |frame: &Vec<u8>| ToMaster::decode(frame).expect("a report");
        frames.iter().map(read).collect()
    }

    fn count(&self, sql: &str) -> i64 {
        let file = self.file.connection();
        file.query_row(sql, [], |row| row.get(0)).expect("a number")
    }
}

fn call<'a>(method: &'a str, segments: &[&'a str], body: &'a str) -> GatewayCall<'a> {
    GatewayCall {
        app_id: "a",
        key: "k",
        method,
        segments: segments.to_vec(),
        query: Vec::new(),
        body: body.as_bytes(),
    }
}

fn registration(n: u32) -> String {
    format!(r#"{{"device_id":"d{n}","platform":"android","token":"token-number-{n}"}}"#)
}

#[test]
fn a_registration_is_answered_when_it_is_stored_and_not_before() {
    let mut post = post(database(), key("k", "a"), Vec::new(), 1);
    assert_eq!(post.told_master(), [ToMaster::Ready]);
    post.settle();
    post.call(7, "POST", &["devices"], &registration(1));
    post.call(8, "POST", &["devices"], "{}");
    let early: Vec<u16> = post.answers().into_iter().map(|it| it.1).collect();
    assert_eq!(early, [400], "what is wrong is told at once");
    let Some(StoreRequest::Commit(work)) = post.hand.node.store_request() else {
        panic!("nothing to store");
    };
    assert!(!format!("{work:?}").contains("token-number"), "sealed");
    post.reply(StoreReply::Failed("the disk is full".into()));
    assert_eq!(
        post.answers(),
        [],
        "nothing is answered while the store fails"
    );
    post.hand.pass(std::time::Duration::from_secs(2));
    post.settle();
    let answers = post.answers();
    assert_eq!((answers.len(), answers[0].0, answers[0].1), (1, 7, 201));
    assert!(!answers[0].2.contains("token-number"));
    assert_eq!(post.count("SELECT count(*) FROM device_registrations"), 1);
}

#[test]
fn keys_that_do_not_fit_are_told_to_the_master_and_nobody_is_served() {
    let mut first = post(database(), key("k", "a"), Vec::new(), 1);
    first.call(7, "POST", &["devices"], &registration(1));
    first.settle();
    let mut second = post(first.file, key("k", "b"), Vec::new(), 2);
    let told = second.told_master();
    let [ToMaster::Unfit(why)] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(why.contains("the token key k is not the one"), "{why}");
    second.call(9, "GET", &["devices", "d1"], "");
    assert!(!second.store() && second.answers().is_empty());
    assert_eq!(second.count("SELECT count(*) FROM token_keys"), 1);
}

#[test]
fn a_rotation_goes_on_in_the_next_courier_and_passes_by_what_does_not_open() {
    let mut before = post(database(), key("old", "a"), Vec::new(), 1);
    for n in 0..450 {
        before.call(7, "POST", &["devices"], &registration(n));
    }
    before.settle();
    let file = before.file.connection();
    file.execute(
        "UPDATE device_registrations SET token_tag = 'AAAAAAAAAAAAAAAAAAAAAA==' \
             WHERE device_id = 'd3'",
        [],
    )
    .expect("altered");
    let mut during = post(before.file, key("new", "b"), vec![key("old", "a")], 2);
    during.settle();
    let rotate = call("POST", &["keys", "rotation"], "");
    let report = Report::Call {
        ticket: 5,
        call: rotate,
    };
    during.told_master();
    during
        .hand
        .receive(during.master, &Order::Call(report.encode()).encode());
    let left = "SELECT count(*) FROM device_registrations WHERE token_key_id = 'old'";
    assert_eq!(during.count(left), 450);
    while during.count(left) > 300 {
        assert!(during.store(), "it goes on by itself");
    }
    let told = during.told_master();
    assert!(
        matches!(
            &told[..],
            [ToMaster::Answered {
                ticket: 5,
                status: 202,
                ..
            }]
        ),
        "{told:?}"
    );
    // It dies between two pages.
    let mut after = post(during.file, key("new", "b"), vec![key("old", "a")], 3);
    after.settle();
    assert_eq!(after.count(left), 1, "the one that was altered");
    assert_eq!(after.hand.node.counters().tokens_unreadable, 1);
    assert_eq!(after.count("SELECT sum(is_rotating) FROM token_keys"), 0);
}
