//! The `files` handler with real files: what is served is what lies there, in bounded memory, and
//! nothing that lies elsewhere.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Command;

use support::{PATIENCE, Place, Server, pid_of, processes};

const CONFIG: &str = "workers = 1\n\
    [[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"files\"\nroot = \"site\"\n";

const MIB: usize = 1024 * 1024;

/// A site with a page, a directory, and what must not be seen.
fn place() -> Place {
    let place = Place::new(CONFIG);
    let site = place.path().join("site");
    fs::create_dir_all(site.join("dir/.git")).expect("directories");
    let write = |path: &str, text: &str| fs::write(site.join(path), text).expect("a file");
    write("index.html", "<title>home</title>");
    write("dir/index.html", "<title>dir</title>");
    write("dir/a b.txt", "0123456789");
    write("dir/.git/config", "SECRET");
    write(".hidden", "SECRET");
    write("empty.css", "");
    fs::create_dir(site.join("bare")).expect("a directory");
    fs::write(place.path().join("secret"), "SECRET").expect("a file");
    symlink("../secret", site.join("link")).expect("a link");
    symlink("..", site.join("up")).expect("a link");
    place
}

/// One that differs everywhere, so that a piece in the wrong place is seen.
fn large(bytes: usize) -> Vec<u8> {
    let numbers = 0..(bytes / 8) as u64;
    numbers
        .flat_map(|it| it.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
        .collect()
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(server: &Server) -> Connection {
        let stream = TcpStream::connect(server.address(0)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Connection(BufReader::new(stream))
    }

    fn send(&mut self, method: &str, path: &str, fields: &str) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .expect("sent");
    }

    fn head(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let count = self.0.read_line(&mut head).expect("a head");
            assert_ne!(count, 0, "the end after {head:?}");
        }
        Answer {
            status: head[9..12].parse().expect("a status"),
            head,
            body: Vec::new(),
        }
    }

    fn call(&mut self, method: &str, path: &str, fields: &str) -> Answer {
        self.send(method, path, fields);
        let mut answer = self.head();
        let length = answer
            .field("Content-Length")
            .map_or(0, |it| it.parse().expect("a number"));
        if method != "HEAD" && answer.status != 304 {
            answer.body = vec![0; length];
            self.0.read_exact(&mut answer.body).expect("a whole body");
        }
        answer
    }

    fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, "")
    }
}

fn memory(server: &Server) -> u64 {
    let status = server.status();
    let worker = processes(&status, "worker")[0];
    let text = fs::read_to_string(format!("/proc/{}/status", pid_of(worker))).expect("its status");
    let line = text
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("its peak");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("digits");
    kib * 1024
}

#[test]
fn pages_directories_and_conditions_on_one_connection() {
    let server = Server::start_in(place());
    let mut client = Connection::open(&server);
    let home = client.get("/");
    assert_eq!(
        (home.status, home.body.as_slice()),
        (200, &b"<title>home</title>"[..])
    );
    assert_eq!(home.field("Content-Type"), Some("text/html; charset=utf-8"));
    let tag = home.field("ETag").expect("a tag").to_owned();
    let date = home.field("Last-Modified").expect("a date").to_owned();
    let again = client.call("GET", "/index.html", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(
        (again.status, again.field("ETag")),
        (304, Some(tag.as_str()))
    );
    let again = client.call("GET", "/", &format!("If-Modified-Since: {date}\r\n"));
    assert_eq!(again.status, 304);
    let moved = client.get("/dir?x=1");
    assert_eq!(
        (moved.status, moved.field("Location")),
        (301, Some("/dir/?x=1"))
    );
    assert_eq!(client.get("/dir/").body, b"<title>dir</title>");
    assert_eq!(client.get("/dir/a%20b.txt").body, b"0123456789");
    let part = client.call("GET", "/dir/a%20b.txt", "Range: bytes=2-4\r\n");
    assert_eq!((part.status, part.body.as_slice()), (206, &b"234"[..]));
    assert_eq!(part.field("Content-Range"), Some("bytes 2-4/10"));
    assert_eq!(
        client
            .call("GET", "/dir/a%20b.txt", "Range: bytes=10-\r\n")
            .status,
        416
    );
    let head = client.call("HEAD", "/dir/a%20b.txt", "");
    assert_eq!(
        (head.status, head.field("Content-Length")),
        (200, Some("10"))
    );
    assert_eq!(client.get("/empty.css").status, 200);
    assert_eq!(
        client.get("/bare/").status,
        404,
        "directories are not listed"
    );
    assert_eq!(client.get("/none").status, 404);
    let refused = client.call("POST", "/", "Content-Length: 0\r\n");
    assert_eq!(
        (refused.status, refused.field("Allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn nothing_outside_of_the_root_and_nothing_hidden_is_served() {
    let server = Server::start_in(place());
    for path in [
        "/../secret",
        "/dir/../../secret",
        "/%2e%2e/secret",
        "/%2E%2E%2Fsecret",
        "/..%2fsecret",
        "/dir/%2e%2e/%2e%2e/secret",
        "/%252e%252e/secret",
        "/..%5csecret",
        "/..\\secret",
        "//../secret",
        "/./../secret",
        "/..;/secret",
        "/%c0%ae%c0%ae/secret",
        "/%uff0e%uff0e/secret",
        "/index.html%00/../../secret",
        "/%00",
        "/link",
        "/up/secret",
        "/up/site/../secret",
        "/.hidden",
        "/%2ehidden",
        "/dir/.git/config",
    ] {
        let mut client = Connection::open(&server);
        let answer = client.get(path);
        assert!(
            matches!(answer.status, 400 | 404),
            "{path}: {}",
            answer.head
        );
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!body.contains("SECRET"), "{path}: {body}");
    }
}

#[test]
fn a_large_file_arrives_whole_in_little_memory_and_can_be_resumed() {
    let place = place();
    let content = large(64 * MIB);
    fs::write(place.path().join("site/large.bin"), &content).expect("a file");
    let server = Server::start_in(place);
    let before = memory(&server);
    let mut client = Connection::open(&server);
    for _ in 0..2 {
        let answer = client.get("/large.bin");
        assert!(answer.body == content, "the bytes are those of the file");
    }
    // By a client of the field, which goes on where it was broken off.
    let got = server.place.path().join("got");
    fs::write(&got, &content[..10 * MIB + 3]).expect("a start");
    let url = format!("{}/large.bin", server.url(0));
    let status = Command::new("curl")
        .args(["--silent", "--fail", "--continue-at", "-", "--output"])
        .arg(&got)
        .arg(url)
        .status()
        .expect("curl is there");
    assert!(status.success());
    assert!(fs::read(&got).expect("the file") == content);
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < 16 * MIB as u64, "{grown} bytes more at the peak");
}

#[test]
fn clients_that_take_nothing_hold_one_piece_each_and_nobody_up() {
    let place = place();
    let content = large(32 * MIB);
    fs::write(place.path().join("site/large.bin"), &content).expect("a file");
    let server = Server::start_in(place);
    let before = memory(&server);
    let mut slow: Vec<Connection> = (0..50).map(|_| Connection::open(&server)).collect();
    for client in &mut slow {
        client.send("GET", "/large.bin", "");
        assert_eq!(client.head().status, 200);
    }
    let mut quick = Connection::open(&server);
    assert!(quick.get("/large.bin").body == content);
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < 24 * MIB as u64, "{grown} bytes more at the peak");
    // One of them reads on, a little at a time, and asks for more behind it.
    let client = &mut slow[7];
    client.send("GET", "/dir/", "");
    let mut body = Vec::new();
    let mut piece = vec![0; 40_000];
    while body.len() < content.len() {
        let most = piece.len().min(content.len() - body.len());
        let count = client.0.read(&mut piece[..most]).expect("bytes");
        assert_ne!(count, 0, "the end after {}", body.len());
        body.extend_from_slice(&piece[..count]);
    }
    assert!(body == content);
    let mut rest = client.head();
    rest.body = vec![0; 18];
    client
        .0
        .read_exact(&mut rest.body)
        .expect("the second answer");
    assert_eq!(rest.body, b"<title>dir</title>");
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_connection() {
    let place = place();
    let path = place.path().join("site/large.bin");
    fs::write(&path, large(32 * MIB)).expect("a file");
    let server = Server::start_in(place);
    let mut client = Connection::open(&server);
    client.send("GET", "/large.bin", "");
    assert_eq!(client.head().status, 200);
    let file = File::options().write(true).open(&path).expect("the file");
    file.set_len(1000).expect("it shrinks");
    let mut body = Vec::new();
    client.0.read_to_end(&mut body).expect("the end");
    assert!(body.len() < 32 * MIB, "{}", body.len());
    let mut next = Connection::open(&server);
    assert_eq!(next.get("/large.bin").body.len(), 1000);
}

#[test]
fn a_root_that_is_not_there_or_not_wanted_is_told_by_check() {
    let output = Place::new(CONFIG).run(&["check"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{words}");
    assert!(
        words.contains("/site: No such file or directory"),
        "{words}"
    );
    for (config, expected) in [
        (CONFIG.replace("root = \"site\"\n", ""), "needs a root"),
        (
            CONFIG.replace("http://", "text://"),
            "answers HTTP and nothing else",
        ),
        (
            CONFIG.replace("\"files\"", "\"echo\""),
            "root goes with handler = \"files\"",
        ),
        (
            format!("{CONFIG}index = \"../x\"\n"),
            "index must be the name of a file",
        ),
    ] {
        let output = Place::new(&config).run(&["check"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(6), "{words}");
        assert!(words.contains(expected), "{words}");
    }
}
