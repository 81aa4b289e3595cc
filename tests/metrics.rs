//! The `metrics` handler with real processes: what it tells is true, well formed, told by whichever
//! worker is asked, and never falls when processes are replaced.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use support::{PATIENCE, Place, Server, get, pid_of, processes, publish_call, wait_until};

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;
const SIGKILL: i32 = 9;

/// Metrics first, then lines and HTTP with the demo app.
const CONFIG: &str = "workers = 2\nthreads = 2\nwatchdog_seconds = 0\n\
    [[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"metrics\"\n\
    [[listen]]\nurl = \"text://127.0.0.1:0\"\n\
    [[listen]]\nurl = \"http://127.0.0.1:0\"\n\
    [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
    [limits]\nquestion_seconds = 1\n";

/// Values by name with labels, as they stand in the text.
type Samples = BTreeMap<String, f64>;

/// Reads the text as Prometheus would, and fails where it would.
fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'));
    let mut samples = Samples::new();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped: &str = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split(' ').next().expect("a name");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(name, helped, "HELP and TYPE belong together");
            assert!(types.insert(name, kind).is_none(), "{name} twice");
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let bare = name.split('{').next().expect("a name");
            let kind = types.get(helped).expect("a type comes first");
            match *kind {
                "histogram" => assert!(bare.starts_with(helped), "{line}"),
                "counter" => assert!(bare == helped && bare.ends_with("_total"), "{line}"),
                "gauge" => assert!(bare == helped && !bare.ends_with("_total"), "{line}"),
                other => panic!("{other}"),
            }
            let value = value.parse().expect("a number");
            assert!(
                samples.insert(name.to_owned(), value).is_none(),
                "{name} twice"
            );
        }
    }
    samples
}

fn scrape(server: &Server) -> Samples {
    let (code, body) = get(&server.address(0), "/metrics").expect("an answer");
    assert_eq!(code, 200, "{body}");
    parse(&body)
}

/// All series of one name together.
fn total(samples: &Samples, name: &str) -> f64 {
    let of_name = |series: &&String| series.split('{').next() == Some(name);
    let series = samples.keys().filter(of_name);
    series.map(|series| samples[series]).sum()
}

/// Waits until the numbers show what is expected; they may be a quarter of a second old.
fn wait_for(server: &Server, what: &str, shows: impl Fn(&Samples) -> bool) -> Samples {
    let mut last = Samples::new();
    wait_until(what, || {
        last = scrape(server);
        shows(&last)
    });
    last
}

struct Client(BufReader<TcpStream>);

impl Client {
    /// Subscribed to `news`.
    fn subscribe(server: &Server) -> Client {
        let stream = TcpStream::connect(server.address(1)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut client = Client(BufReader::new(stream));
        let hello = "{\"event\":\"pusher:connect\",\"data\":{\"app_key\":\"demo-key\",\"protocol\":7}}\n\
            {\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"news\"}}\n";
        client
            .0
            .get_mut()
            .write_all(hello.as_bytes())
            .expect("sent");
        client.expect("subscription_succeeded");
        client
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            let count = self.0.read_line(&mut line).expect("a line");
            assert_ne!(count, 0, "the end before {word}");
        }
    }

    /// Nothing was said to it that it has not read.
    fn is_up_to_date(&mut self) {
        let ping = b"{\"event\":\"pusher:ping\"}\n";
        self.0.get_mut().write_all(ping).expect("sent");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        assert!(line.contains("pusher:pong"), "{line}");
    }
}

fn publish(server: &Server) {
    let body = "{\"name\":\"hit\",\"channel\":\"news\",\"data\":\"{}\"}";
    let fields = "Connection: close\r\nContent-Type: application/json\r\n";
    let call = publish_call(fields, body);
    let mut stream = TcpStream::connect(server.address(2)).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(call.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn an_event_for_more_than_a_turn_writes_to_reaches_all_of_them_once_and_in_order() {
    let server = Server::start(&CONFIG.replace("workers = 2\nthreads = 2\n", "workers = 1\n"));
    let count = 1_100;
    let mut clients: Vec<Client> = (0..count).map(|_| Client::subscribe(&server)).collect();
    for _ in 0..3 {
        publish(&server);
    }
    for client in &mut clients {
        (0..3).for_each(|_| client.expect("\"hit\""));
        client.is_up_to_date();
    }
    let made = f64::from(3 * count);
    let samples = wait_for(&server, "the deliveries are counted", |samples| {
        total(samples, "lineman_fan_out_seconds_count") == made
    });
    assert_eq!(total(&samples, "lineman_deliveries_total"), made);
}

#[test]
fn whatever_happens_in_any_worker_is_told_by_all() {
    let server = Server::start(CONFIG);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::subscribe(&server)).collect();
    for _ in 0..3 {
        publish(&server);
    }
    for client in &mut clients {
        (0..3).for_each(|_| client.expect("\"hit\""));
    }
    let samples = wait_for(&server, "the deliveries are counted", |samples| {
        total(samples, "lineman_deliveries_total") == 24.0
    });
    assert_eq!(total(&samples, "lineman_fan_out_seconds_count"), 24.0);
    assert_eq!(total(&samples, "lineman_subscriptions"), 8.0);
    assert_eq!(total(&samples, "lineman_events_published_total"), 3.0);
    assert_eq!(samples["lineman_channels"], 1.0);
    assert_eq!(samples["lineman_links"], 4.0);
    assert_eq!(total(&samples, "lineman_process_up"), 4.0);
    assert!(samples["lineman_process_resident_memory_bytes{process=\"master\"}"] > 100_000.0);
    assert!(samples["lineman_uptime_seconds"] < 1000.0);
    let version = format!(
        "lineman_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(samples[&version], 1.0);
    let turns = "lineman_turn_seconds_count{process=\"switchboard\"}";
    assert!(samples[turns] > 0.0);

    drop(clients);
    wait_for(
        &server,
        "the ends are counted with their reason",
        |samples| {
            let gone = |worker| {
                let labels = format!("reason=\"peer_gone\",worker=\"{worker}\"");
                samples[&format!("lineman_connections_closed_total{{{labels}}}")]
            };
            // The subscribers, and whoever else hangs up; nobody broke the protocol.
            gone(0) + gone(1) >= 8.0 && total(samples, "lineman_subscriptions") == 0.0
        },
    );
}

#[test]
fn nothing_that_counts_up_falls_when_processes_are_replaced() {
    let server = Server::start(CONFIG);
    drop(
        (0..8)
            .map(|_| Client::subscribe(&server))
            .collect::<Vec<_>>(),
    );
    let before = wait_for(&server, "the clients are gone", |samples| {
        total(samples, "lineman_subscriptions") == 0.0
            && total(samples, "lineman_messages_received_total") == 16.0
    });
    let output = server.place.run(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let never_less = |samples: &Samples| {
        for (series, value) in &before {
            let cpu = series.starts_with("lineman_process_cpu");
            let name = series.split('{').next().unwrap_or("");
            if !cpu
                && ["_total", "_count", "_bucket"]
                    .iter()
                    .any(|end| name.ends_with(end))
            {
                assert!(samples[series] >= *value, "{series} fell from {value}");
            }
        }
    };
    never_less(&scrape(&server));
    let status = server.status();
    for worker in processes(&status, "worker") {
        server.kill(pid_of(worker), SIGKILL);
    }
    let after = wait_for(&server, "the workers are back", |samples| {
        total(samples, "lineman_process_up") == 4.0
            && total(samples, "lineman_process_restarts_total") == 2.0
    });
    never_less(&after);
    assert_eq!(total(&after, "lineman_messages_received_total"), 16.0);
}

#[test]
fn a_worker_that_hangs_costs_half_a_second_and_a_master_that_hangs_a_503() {
    let server = Server::start(CONFIG);
    let status = server.status();
    let address = server.address(0);
    let pids: Vec<u32> = processes(&status, "worker")
        .into_iter()
        .map(pid_of)
        .collect();
    server.kill(pids[1], SIGSTOP);
    wait_until("a scrape reaches the other worker", || {
        // Half of them are queued at the one that hangs.
        let Ok(mut stream) = TcpStream::connect(&address) else {
            return false;
        };
        let second = Some(std::time::Duration::from_secs(1));
        stream.set_read_timeout(second).expect("a timeout");
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("sent");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        read.is_ok() && answer.contains("lineman_process_up{process=\"worker\",worker=\"1\"} 0")
    });
    server.kill(pids[1], SIGCONT);
    server.kill(server.pid(), SIGSTOP);
    let mut stream = TcpStream::connect(&address).expect("a worker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    server.kill(server.pid(), SIGCONT);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("Retry-After: 1"), "{answer}");
    scrape(&server);
}

#[test]
fn beside_the_metrics_there_are_the_probes_and_nothing_else() {
    let server = Server::start(CONFIG);
    let address = server.address(0);
    let code = |path: &str| get(&address, path).expect("an answer").0;
    assert_eq!(code("/healthz"), 200);
    assert_eq!(code("/readyz"), 200);
    assert_eq!(code("/"), 404);
    assert_eq!(code("/metrics?x=y"), 200);
    let mut stream = TcpStream::connect(&address).expect("the server listens");
    let requests = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
        HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(requests).expect("sent");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("two answers");
    assert!(answers.starts_with("HTTP/1.1 405") && answers.contains("Allow: GET, HEAD, OPTIONS"));
    let (_, head) = answers
        .rsplit_once("HTTP/1.1 200")
        .expect("the second answer");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(!head.contains("# HELP"), "{head}");
}

#[test]
fn many_scrapes_at_once_are_all_answered() {
    let server = Server::start(CONFIG);
    let address = server.address(0);
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let streams: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("the server listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.write_all(request).expect("sent");
            stream
        })
        .collect();
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        parse(answer.split_once("\r\n\r\n").expect("a body").1);
    }
}

#[test]
fn check_warns_of_a_public_listener_and_refuses_one_without_http() {
    let public = "[[listen]]\nurl = \"http://0.0.0.0:9\"\nhandler = \"metrics\"\n";
    let output = Place::new(public).run(&["check"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{words}");
    assert!(
        words.contains("warning: http://0.0.0.0:9 tells the numbers"),
        "{words}"
    );
    let local = "[[listen]]\nurl = \"http://127.0.0.1:9\"\nhandler = \"metrics\"\n";
    assert!(Place::new(local).run(&["check"]).stderr.is_empty());
    let lines = "[[listen]]\nurl = \"text://127.0.0.1:9\"\nhandler = \"metrics\"\n";
    let output = Place::new(lines).run(&["check"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the metrics handler answers HTTP"));
}
