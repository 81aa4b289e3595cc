//! The protocol as we speak it: every file in tests/transcripts/ is a conversation that the server
//! has to keep to, line by line.

mod script;
mod world;

use std::path::Path;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts"))
}

fn play(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).expect("the transcript is there");
    if let Err(why) = script::run(&text) {
        panic!("tests/transcripts/{name}.txt, {why}");
    }
}

macro_rules! transcripts {
    ($($name:ident)*) => {
        $(#[test] fn $name() { play(stringify!($name)); })*

        #[test]
        fn every_transcript_is_played() {
            let mut listed = [$(concat!(stringify!($name), ".txt")),*].map(str::to_owned).to_vec();
            let files = std::fs::read_dir(folder()).expect("the folder is there");
            let mut found: Vec<String> = files
                .map(|file| file.expect("readable").file_name().into_string().expect("a name"))
                .filter(|name| name.ends_with(".txt"))
                .collect();
            listed.sort();
            found.sort();
            assert_eq!(listed, found);
        }
    };
}

transcripts! {
    api_authentication
    api_batch
    api_exclusion
    api_info
    api_mistakes
    api_publish
    api_reads
    api_users
    authorize
    cache_channels
    cache_channels_full
    client_events
    client_events_refused
    connecting
    connecting_refused
    echo
    encrypted
    heartbeat
    history
    history_lost
    history_reads
    malformed
    outage
    outage_users
    ping_pong
    presence
    presence_refused
    private
    private_refused
    probes
    public
    raw_clients
    raw_clients_refused
    sign_in
    sign_in_refused
    subscription_counts
    too_big
    watchlists
}

#[test]
fn a_transcript_that_is_not_kept_to_fails_at_its_line() {
    let broken = [
        (
            "alice ! enter\nalice < {\"event\":\"x\"}",
            "line 2: received nothing",
        ),
        (
            "alice ! enter\nalice > {\"event\":\"pusher:ping\"}\nalice < {\"event\":\"pusher:pong\",\"data\":`[]`}",
            "line 3: received {",
        ),
        (
            "alice ! enter\nalice > {\"event\":\"pusher:ping\"}",
            "at the end, alice was also told",
        ),
        (
            "alice ! enter\nalice ! close\nalice < close 1001",
            "line 3: closed with 1000",
        ),
        ("alice > {}", "line 1: alice has no connection"),
        ("alice ! enter\nalice < ping", "line 2: received nothing"),
        (
            "alice ! enter\nalice > $who\n",
            "line 2: nothing is known of $who",
        ),
        ("alice ! connect\nalice < nothing", "line 2: received {"),
        ("api > GET /healthz\napi < 404 *", "line 2: received 200"),
        (
            "api > GET /healthz\napi < 200 {\"alive\":false}",
            "line 2: received {",
        ),
        (
            "api > GET /healthz\napi < 200 *\napi < header A: b",
            "line 3: the head was",
        ),
        ("limits surprise=1\n", "unknown field `surprise`"),
        ("bob whispers", "line 1: not a line of a transcript"),
    ];
    for (text, why) in broken {
        let error = script::run(text).expect_err(text);
        assert!(error.starts_with(why), "{error}\nfor\n{text}");
    }
}
