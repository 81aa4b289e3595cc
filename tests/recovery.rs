//! History with real processes, for clients that speak for themselves: what a reload keeps, what ends
//! it, and that lines recover like WebSockets. What pusher-js makes of it is in `tests/clients`.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use support::{PATIENCE, Server, pid_of, processes, publish_call, wait_until};

/// Without free ports, which a reload may not change, it could not be configured anew.
fn config(events: u32) -> String {
    let port = |_| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("it is bound").port()
    };
    let [http, lines] = [0, 1].map(port);
    format!(
        "workers = 2\n\
         [[listen]]\nurl = \"http://127.0.0.1:{http}\"\n\
         [[listen]]\nurl = \"text://127.0.0.1:{lines}\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
         [[apps.history]]\npattern = \"kept-*\"\nevents = {events}\n"
    )
}

/// A client by lines.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect(server.address(1)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut client = Client(BufReader::new(stream));
        client.send(&json!({"event": "pusher:connect", "data": {"app_key": "demo-key"}}));
        assert_eq!(client.next()["event"], "pusher:connection_established");
        client
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.0.get_mut(), "{message}").expect("it is open");
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Subscribes, from this position on if there is one; the success.
    fn subscribe(&mut self, channel: &str, position: Option<&Value>) -> Value {
        let mut data = json!({"channel": channel});
        if let Some(position) = position {
            data["recover"] = json!({"epoch": position["epoch"], "offset": position["offset"]});
        }
        self.send(&json!({"event": "pusher:subscribe", "data": data}));
        let success = self.next();
        let name = "pusher_internal:subscription_succeeded";
        assert_eq!(success["event"], name, "{success}");
        success
    }
}

fn ask(server: &Server, call: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(server.address(0)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(call.as_bytes()).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = answer[9..12].parse().expect("a status");
    (status, serde_json::from_str(body).expect("JSON"))
}

fn publish(server: &Server, data: &str) -> (u16, Value) {
    let body = json!({"name": "e", "channel": "kept-room", "data": data, "info": "offset"});
    let close = "Connection: close\r\n";
    ask(server, &publish_call(close, &body.to_string()))
}

fn history(server: &Server, query: &str) -> (u16, Value) {
    let path = format!("/apps/demo/channels/kept-room/history{query}");
    let head = "Host: x\r\nAuthorization: Bearer demo-secret\r\nConnection: close";
    ask(server, &format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n"))
}

fn reload(server: &Server) {
    let output = server.place.run(&["reload"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_reload_keeps_history_and_a_changed_rule_begins_it_anew() {
    let toml = config(5);
    let server = Server::start(&toml);
    let mut client = Client::connect(&server);
    let begin = client.subscribe("kept-room", None);
    assert_eq!(
        (&begin["offset"], &begin["recovered"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(
        publish(&server, "1").1["channels"]["kept-room"]["offset"],
        1
    );
    let first = client.next();
    assert_eq!((&first["data"], &first["offset"]), (&json!("1"), &json!(1)));

    let switchboard = pid_of(processes(&server.status(), "switchboard")[0]);
    reload(&server);
    assert_eq!(
        pid_of(processes(&server.status(), "switchboard")[0]),
        switchboard
    );
    assert_eq!(publish(&server, "2").0, 200);
    let mut client = Client::connect(&server);
    let back = client.subscribe("kept-room", Some(&first));
    assert_eq!(
        (&back["recovered"], &back["missed"]),
        (&json!(true), &json!(1))
    );
    let second = client.next();
    assert_eq!(
        (&second["data"], &second["offset"]),
        (&json!("2"), &json!(2))
    );
    let (status, page) = history(&server, "?limit=1");
    assert_eq!((status, &page["events"][0]["data"]), (200, &json!("2")));

    server
        .place
        .configure(&toml.replace("events = 5", "events = 1"));
    reload(&server);
    wait_until("events are accepted", || publish(&server, "3").0 == 200);
    let mut client = Client::connect(&server);
    let back = client.subscribe("kept-room", Some(&second));
    assert_eq!(back["recovered"], false, "{back}");
    assert_ne!(back["epoch"], second["epoch"]);
    assert_eq!(publish(&server, "4").0, 200);
    assert_eq!(client.next()["data"], "4");
    let (_, page) = history(&server, "");
    assert_eq!(page["events"].as_array().map(Vec::len), Some(1), "{page}");
    let before = format!("?epoch={}&after=0", page["epoch"].as_str().expect("text"));
    assert_eq!(history(&server, &before).0, 410, "one of them is gone");
}

#[test]
fn without_a_rule_nothing_is_kept_and_no_message_is_different() {
    let server = Server::start(&config(5));
    let mut client = Client::connect(&server);
    let success = client.subscribe("news", None);
    assert_eq!(success.as_object().map(|it| it.len()), Some(3), "{success}");
    let body = r#"{"name":"e","channel":"news","data":"1"}"#;
    let (status, answer) = ask(&server, &publish_call("Connection: close\r\n", body));
    assert_eq!((status, answer), (200, json!({})));
    assert_eq!(
        client.next(),
        json!({"event": "e", "channel": "news", "data": "1"})
    );
    let path = "GET /apps/demo/channels/news/history HTTP/1.1\r\nHost: x\r\n\
                Authorization: Bearer demo-secret\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&server, path).0, 404);
}
