//! The courier played by hand, its store and its endpoint too: what it tells after which crash, and
//! that nothing goes out that was not stored.

use std::sync::Arc;
use std::time::Duration;

use lineman::base::ids::{ConnId, DialId};
use lineman::base::limits::Limits;
use lineman::node::courier::{Courier, CourierOptions, DeviceOptions};
use lineman::node::{Node, Origin, Output, Peer};
use lineman::push::facts::{Fact, Letter, Memory, StoreReply, StoreRequest};
use lineman::push::truth::Subject;
use lineman::push::webhook::{Kind, Webhook};
use lineman::wire::courier_bus::{Receipt, Report, VERSION};
use lineman::wire::target::Target;

use crate::apps::one_app;
use crate::hand::Hand;

pub const ROOM: &str = "a/presence-x";
pub const URL: &str = "https://b.example/";
pub const FINE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

pub struct Post {
    pub hand: Hand<Courier>,
    pub link: ConnId,
}

impl Post {
    /// A courier that remembers this, and has heard Hello of this life.
    fn new(memory: Memory, life: u64) -> Post {
        let mut post = Post::started(false);
        post.hear(&Report::Hello {
            version: VERSION,
            life,
            given: false,
        });
        assert_eq!(post.hand.take(post.link), b"", "it remembers nothing yet");
        assert_eq!(post.asked(), Some(StoreRequest::Load));
        post.reply(StoreReply::Loaded(memory));
        post
    }

    /// A courier with a link, over which nobody has greeted.
    pub fn started(in_cluster: bool) -> Post {
        Post::with(in_cluster, None)
    }

    /// The same, with a push gateway.
    pub fn with(in_cluster: bool, devices: Option<DeviceOptions>) -> Post {
        let webhook = Webhook {
            app_id: "a".into(),
            url: URL.into(),
            target: Target::parse_web(URL).expect("a URL"),
            kinds: Kind::ALL.map(|(_, kind)| kind).to_vec(),
            channel_prefix: String::new(),
            channel_suffix: String::new(),
            batch_events: 100,
            timeout: Duration::from_secs(10),
            retry: Duration::from_secs(300),
        };
        let mut hand = Hand::new(Courier::new(CourierOptions {
            webhooks: vec![webhook],
            apps: one_app("a", "k", "s"),
            limits: Limits::default(),
            in_cluster,
            sending: Default::default(),
            devices,
            seed: [9; 16],
        }));
        let link = hand.open(Origin::Link);
        Post { hand, link }
    }

    pub fn hear(&mut self, report: &Report<'_>) {
        self.hand.receive(self.link, &report.encode());
    }

    /// What the store was asked.
    pub fn asked(&mut self) -> Option<StoreRequest> {
        self.hand.node.store_request()
    }

    pub fn reply(&mut self, reply: StoreReply) {
        let now = self.hand.now;
        self.hand.node.stored(reply, now);
        self.hand.pass(Duration::ZERO);
    }

    /// The bodies of the letters it stores now; the store has done so then.
    fn stored(&mut self) -> Vec<String> {
        let Some(StoreRequest::Commit(work)) = self.asked() else {
            return Vec::new();
        };
        self.reply(StoreReply::Committed(Vec::new()));
        bodies(&work.facts)
    }

    pub fn here(&mut self, sequence: u64, user_id: Option<&str>) {
        let channel = ROOM;
        self.hear(&Report::Here {
            sequence,
            channel,
            user_id,
        });
    }

    fn receipts(&mut self) -> Vec<Receipt<'static>> {
        let frames = self.hand.take_frames(self.link);
        let read = |frame: &Vec<u8>| match Receipt::decode(frame).expect("a receipt") {
            Receipt::Heard { sequence } => Receipt::Heard { sequence },
            Receipt::Stored { sequence } => Receipt::Stored { sequence },
            other => panic!("{other:?} is of the gateway"),
        };
        frames.iter().map(read).collect()
    }

    /// The dial it wants, established.
    pub fn connect(&mut self) -> ConnId {
        let outputs = self.hand.take_outputs();
        let dial = outputs.iter().find_map(|output| match output {
            Output::Dial(peer @ Peer::Outside(_)) => Some(*peer),
            _ => None,
        });
        self.hand.open(Origin::Dialled(dial.expect("a dial")))
    }
}

fn bodies(facts: &Arc<Vec<Fact>>) -> Vec<String> {
    let letters = facts.iter().filter_map(|fact| match fact {
        Fact::Queued(letter) => Some(letter.body.clone()),
        _ => None,
    });
    letters.collect()
}

fn member(id: &str) -> (String, Subject) {
    (ROOM.to_string(), Subject::Member(id.to_string()))
}

#[test]
fn nothing_is_sent_or_receipted_that_was_not_stored() {
    let mut post = Post::new(Memory::default(), 1);
    assert_eq!(post.receipts(), [Receipt::Heard { sequence: 0 }]);
    post.here(1, None);
    post.here(2, Some("u"));
    let Some(StoreRequest::Commit(first)) = post.asked() else {
        panic!("nothing to store");
    };
    assert!(bodies(&first.facts)[0].contains("channel_occupied"));
    assert!(post.receipts().is_empty());
    let dials = |post: &mut Post| {
        let outputs = post.hand.take_outputs();
        let outside = |output: &&Output| matches!(output, Output::Dial(Peer::Outside(_)));
        outputs.iter().filter(outside).count()
    };
    assert_eq!(dials(&mut post), 0);
    post.reply(StoreReply::Failed("the disk is full".into()));
    assert_eq!((post.asked(), dials(&mut post)), (None, 0));
    post.hand.pass(Duration::from_secs(1));
    assert_eq!(
        post.asked(),
        Some(StoreRequest::Commit(first)),
        "the same again"
    );
    post.reply(StoreReply::Committed(Vec::new()));
    assert_eq!(post.receipts(), [Receipt::Stored { sequence: 1 }]);
    assert_eq!(dials(&mut post), 1);
    assert!(post.stored()[0].contains("member_added"));
    assert_eq!(post.receipts(), [Receipt::Stored { sequence: 2 }]);
}

#[test]
fn after_a_crash_the_difference_is_told_and_nothing_twice() {
    let told = vec![
        (ROOM.to_string(), Subject::Channel),
        member("stays"),
        member("went"),
    ];
    let memory = Memory {
        told,
        letters: Vec::new(),
        heard: Some((7, 5)),
        ..Memory::default()
    };
    let mut post = Post::new(memory, 7);
    assert_eq!(post.receipts(), [Receipt::Heard { sequence: 5 }]);
    post.here(5, Some("told-before"));
    post.hear(&Report::SnapshotBegins);
    let users = vec!["stays", "came"];
    post.hear(&Report::Present {
        channel: ROOM,
        users,
    });
    post.hear(&Report::SnapshotEnds);
    let stored = post.stored();
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert!(stored[0].contains("\"came\"") && !stored[0].contains("told-before"));
    post.hand.pass(Duration::from_millis(2999));
    assert_eq!(post.stored(), [""; 0]);
    post.hand.pass(Duration::from_millis(1));
    let stored = post.stored();
    assert!(stored[0].contains("member_removed") && stored[0].contains("\"went\""));
    assert!(!stored[0].contains("stays"));
}

#[test]
fn a_letter_of_before_is_sent_as_it_was_until_it_is_answered_well() {
    let letter = |url: &str| Letter {
        id: 3,
        app_id: "a".into(),
        url: url.into(),
        lane: 0,
        time_ms: 1_767_225_600_000,
        body: "{\"old\":1}".into(),
    };
    let gone = Letter {
        id: 2,
        ..letter("https://no.more/")
    };
    let letters = vec![gone, letter(URL)];
    let memory = Memory {
        letters,
        ..Memory::default()
    };
    let mut post = Post::new(memory, 1);
    let settled = |post: &mut Post| match post.asked() {
        Some(StoreRequest::Commit(work)) => {
            post.reply(StoreReply::Committed(Vec::new()));
            work.facts.contains(&Fact::Settled(3))
        }
        _ => false,
    };
    assert!(!settled(&mut post), "the other one is");
    let conn = post.connect();
    let request = String::from_utf8(post.hand.take(conn)).expect("text");
    assert!(request.ends_with("\r\n\r\n{\"old\":1}"), "{request}");
    post.hand
        .receive(conn, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    assert!(!settled(&mut post));
    post.hand.pass(Duration::from_secs(1));
    let again = String::from_utf8(post.hand.take(conn)).expect("text");
    assert_eq!(again, request, "to the byte, on the same connection");
    post.hand.receive(conn, FINE);
    assert!(settled(&mut post));
}

#[test]
fn a_connection_that_the_server_closed_at_rest_costs_no_attempt() {
    let mut post = Post::new(Memory::default(), 1);
    post.here(1, None);
    post.stored();
    let conn = post.connect();
    post.hand.receive(conn, FINE);
    post.stored();
    post.here(2, Some("u"));
    post.stored();
    assert!(
        !post.hand.take(conn).is_empty(),
        "the connection is used again"
    );
    post.hand.hang_up(conn);
    let next = post.connect();
    assert!(!post.hand.take(next).is_empty());
    assert_eq!(post.hand.node.counters().webhooks_failed, 0);
    let none = DialId(u64::MAX);
    assert_eq!(post.hand.node.target(none), None);
}

#[test]
fn a_channel_is_told_before_its_members_whatever_is_reported_first() {
    let mut post = Post::new(Memory::default(), 1);
    // The switchboard has just taken over, and its snapshot comes after this.
    post.here(1, Some("u"));
    let [body] = &post.stored()[..] else {
        panic!("one letter");
    };
    let told = |name| {
        body.find(name)
            .unwrap_or_else(|| panic!("no {name} in {body}"))
    };
    assert!(told("channel_occupied") < told("member_added"));
    post.here(2, None);
    assert_eq!(post.stored(), Vec::<String>::new(), "it was told already");
}

#[test]
fn the_last_words_of_a_dead_switchboard_do_not_drown_the_next_one() {
    let mut post = Post::new(Memory::default(), 1);
    // Both dialled; the later one is heard first, since the bytes of the dead one come late.
    let dead = post.hand.open(Origin::Link);
    let next = post.hand.open(Origin::Link);
    for (link, life) in [(next, 3), (dead, 2)] {
        let hello = Report::Hello {
            version: VERSION,
            life,
            given: false,
        };
        post.hand.receive(link, &hello.encode());
    }
    post.hand.hang_up(dead);
    post.link = next;
    post.here(1, None);
    assert_eq!(post.stored().len(), 1, "the next one is heard");
}
