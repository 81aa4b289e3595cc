//! What a courier does with news of its store, played by hand: they are forgotten when webhooks are sure
//! to be told, whoever dies before.

use std::time::Duration;

use lineman::base::dice::Dice;
use lineman::node::Origin;
use lineman::node::courier::DeviceOptions;
use lineman::push::devices::token_key::{KeyId, TokenKey};
use lineman::push::devices::vault::{Binding, TokenVault};
use lineman::push::facts::{Fact, StoreRequest};
use lineman::store::sqlite::InMemory;
use lineman::wire::courier_bus::Report;

use crate::courier::Post;
use crate::courier_memory::{LONG, greet};

struct Play {
    post: Post,
    store: InMemory,
}

impl Play {
    fn new(in_cluster: bool) -> Play {
        let text = data_encoding::BASE64.encode(b"keys for tests have 32 bytes....");
        let key = TokenKey::parse(KeyId::parse("k").expect("an id"), &text).expect("a key");
        let vault = TokenVault::new(key, Vec::new(), Binding::Row, &mut Dice::new([3; 16]));
        let devices = DeviceOptions {
            vault: vault.expect("a vault"),
            keep_ms: 1_000,
        };
        let mut play = Play {
            post: Post::with(in_cluster, Some(devices)),
            store: InMemory::open().expect("SQLite"),
        };
        play.settle();
        play.happens();
        play
    }

    fn happens(&self) {
        let sql = "INSERT INTO news (app_id, kind, notification, user_id) \
                   VALUES ('a', 'notification_delivered', 'n', 'u')";
        self.store.connection().execute(sql, []).expect("a row");
    }

    /// What is asked of the store is done; the bodies of requests that it keeps then.
    fn settle(&mut self) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(request) = self.post.asked() {
            if let StoreRequest::Commit(work) = &request {
                bodies.extend(work.facts.iter().filter_map(|fact| match fact {
                    Fact::Queued(letter) => Some(letter.body.clone()),
                    _ => None,
                }));
            }
            let reply = self.store.answer(&request);
            self.post.reply(reply);
        }
        bodies
    }

    /// The cluster keeps what it is to keep now.
    fn keep(&mut self) -> Vec<String> {
        self.settle();
        self.post.hear(&Report::Kept);
        self.settle()
    }

    fn pass(&mut self, seconds: u64) -> Vec<String> {
        self.post.hand.pass(Duration::from_secs(seconds));
        self.settle()
    }

    fn noted(&self) -> i64 {
        let sql = "SELECT count(*) FROM news";
        let store = self.store.connection();
        store
            .query_row(sql, [], |row| row.get(0))
            .expect("a number")
    }
}

fn is_told(bodies: &[String]) {
    let told = bodies.concat();
    let times = told.matches("notification_delivered").count();
    assert_eq!(times, 1, "{told}");
}

#[test]
fn on_one_machine_they_are_forgotten_with_the_commit_that_stores_their_requests() {
    let mut play = Play::new(false);
    play.post.hand.pass(Duration::from_secs(31));
    let taken = play.post.asked().expect("it looks");
    let reply = play.store.answer(&taken);
    play.post.reply(reply);
    assert_eq!(play.noted(), 1, "in hand");
    let Some(StoreRequest::Commit(work)) = play.post.asked() else {
        panic!("nothing to store");
    };
    assert!(matches!(work.facts[..], [Fact::Queued(_)]), "{work:?}");
    assert_eq!(work.jobs.len(), 1, "and they are forgotten");
    let reply = play.store.answer(&StoreRequest::Commit(work));
    play.post.reply(reply);
    assert_eq!(play.noted(), 0);
    assert_eq!(play.pass(120), [""; 0], "and told once");
}

#[test]
fn in_a_cluster_they_are_forgotten_when_it_keeps_the_requests() {
    let mut play = Play::new(true);
    assert_eq!(play.pass(31), [""; 0], "another server tells webhooks");
    greet(&mut play.post, false, LONG);
    // It looks with what it has kept there first.
    is_told(&play.keep());
    assert_eq!(play.noted(), 1, "the cluster does not keep it yet");
    play.keep();
    assert_eq!(play.noted(), 0);
}

#[test]
fn what_the_cluster_does_not_keep_is_told_again() {
    let mut play = Play::new(true);
    greet(&mut play.post, true, LONG);
    play.post.hear(&Report::GivenAll);
    is_told(&play.pass(31));
    // The switchboard goes before the cluster has it, and what is given back says nothing of it.
    play.post.hand.hang_up(play.post.link);
    play.post.link = play.post.hand.open(Origin::Link);
    greet(&mut play.post, true, LONG);
    play.post.hear(&Report::GivenAll);
    assert_eq!(play.noted(), 1);
    is_told(&play.pass(120));
}
