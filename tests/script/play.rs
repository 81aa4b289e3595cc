//! The players of a transcript and what they do. It knows how to carry out each step, and decides
//! nothing for the server.

use std::collections::BTreeMap;
use std::time::Duration;

use lineman::base::limits::Limits;
use lineman::wire::websocket::{BINARY, CLOSE, PING, client_frame};
use serde_json::{Value, json};

use super::requests::{Signing, request};
use super::{Step, notation};
use crate::world::client::{Heard, Speech, signature, signature_with, text, upgrade};
use crate::world::{APP_ID, KEY, World};

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
/// As the world opens them.
const LISTENERS: [&str; 4] = ["channels", "echo", "lines", "frames"];
const PATH: &str = "/app/demo-key?protocol=7";

#[derive(Default)]
struct Player {
    client: usize,
    /// Whose key it connected with.
    app: String,
    /// Of the next request.
    signing: Signing,
    /// Of the last answer.
    head: String,
}

/// One run of one transcript.
pub struct Play {
    world: World,
    players: BTreeMap<String, Player>,
}

type Done = Result<(), String>;

impl Play {
    pub fn new(workers: usize, limits: Limits) -> Play {
        let mut world = World::new(workers, limits, 1, false);
        // Until the workers have found the switchboard.
        world.pass(Duration::from_secs(2));
        Play {
            world,
            players: BTreeMap::new(),
        }
    }

    pub fn step(&mut self, step: &Step) -> Done {
        match step {
            Step::Pass(duration) => self.world.pass(*duration),
            Step::Kill(process) => {
                let index = self.process(process)?;
                self.world.kill(index);
            }
            Step::Start(process) => {
                let index = self.process(process)?;
                self.world.start(index);
            }
            Step::Act(name, rest) => self.act(name, rest)?,
            Step::Say(name, rest) if is_api(name) => self.ask(name, rest)?,
            Step::Say(name, rest) => self.say(name, rest)?,
            Step::Hear(name, rest) if is_api(name) => self.check_answer(name, rest)?,
            Step::Hear(name, rest) => self.check(name, rest)?,
        }
        self.world.carry_all();
        Ok(())
    }

    /// Nobody was told anything the transcript does not have.
    pub fn end(&mut self) -> Done {
        for (name, player) in &self.players {
            if let Some(heard) = self.world.clients[player.client].heard.front() {
                return Err(format!("at the end, {name} was also told: {heard:?}"));
            }
        }
        Ok(())
    }

    fn process(&self, name: &str) -> Result<usize, String> {
        match name.split_once(' ') {
            None if name == "switchboard" => Ok(self.world.switchboard()),
            Some(("worker", index)) => index.parse().map_err(|_| "which worker?".to_owned()),
            _ => Err("a process is `switchboard` or `worker N`".to_owned()),
        }
    }

    fn client(&self, name: &str) -> Result<usize, String> {
        let player = self.players.get(name);
        player
            .map(|player| player.client)
            .ok_or_else(|| format!("{name} has no connection"))
    }

    fn fill(&self, name: &str, text: &str) -> Result<String, String> {
        let socket_id = |name: &str| {
            let client = self.players.get(name)?.client;
            self.world.clients[client].socket_id.clone()
        };
        let auth = |name: &str, channel: &str| {
            let text = format!("{}:{channel}", socket_id(name)?);
            Some(format!("{KEY}:{}", signature(&text)))
        };
        let epoch = |name: &str| {
            let client = self.players.get(name)?.client;
            let mut events = self.world.clients[client].events.iter().rev();
            events.find_map(|event| event["epoch"].as_str().map(str::to_owned))
        };
        notation::fill(text, &|placeholder, argument| {
            match (placeholder.split_once('.'), placeholder, argument) {
                (Some((other, "socket_id")), _, _) => socket_id(other),
                (Some((other, "auth")), _, Some(channel)) => auth(other, channel),
                (Some((other, "epoch")), _, _) => epoch(other),
                (None, "socket_id", _) => socket_id(name),
                // Without a channel it is filled in when the message is read.
                (None, "auth", None) => Some("$auth".to_owned()),
                (None, "auth", Some(channel)) => auth(name, channel),
                _ => None,
            }
        })
    }

    fn say(&mut self, name: &str, message: &str) -> Done {
        let filled = notation::backticks(&self.fill(name, message)?);
        let client = self.client(name)?;
        let message = match serde_json::from_str::<Value>(&filled) {
            Ok(mut message) if message["data"]["auth"] == "$auth" => {
                self.sign(name, client, &mut message["data"]);
                message.to_string()
            }
            _ => filled,
        };
        let bytes = self.world.clients[client].speech.message(&message);
        self.world.send(client, &bytes);
        Ok(())
    }

    /// Puts in what the customer's backend would answer for this channel and channel_data.
    fn sign(&self, name: &str, client: usize, data: &mut Value) {
        let socket_id = self.world.clients[client].socket_id.clone();
        let mut text = socket_id.unwrap_or_default();
        for part in ["channel", "channel_data"] {
            if let Some(part) = data[part].as_str() {
                text.push(':');
                text.push_str(part);
            }
        }
        if let Some(user_data) = data["user_data"].as_str() {
            text.push_str("::user::");
            text.push_str(user_data);
        }
        let app = &self.players[name].app;
        let signature = signature_with(&format!("{app}-secret"), &text);
        data["auth"] = json!(format!("{app}-key:{signature}"));
    }

    fn act(&mut self, name: &str, rest: &str) -> Done {
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "connect" => return self.connect(name, rest),
            "enter" => {
                self.connect(name, rest)?;
                return self.expect_event(name, "pusher:connection_established");
            }
            "sign" => {
                let rest = self.fill(name, rest)?;
                self.player(name).signing = Signing::new(&rest);
                return Ok(());
            }
            _ => {}
        }
        let client = self.client(name)?;
        let frame = |opcode, payload: &[u8]| client_frame(opcode, true, MASK, payload);
        match verb {
            "subscribe" => return self.subscribe(name, rest),
            "sign-in" => {
                let data = json!({"auth": "$auth", "user_data": rest});
                let message = json!({"event": "pusher:signin", "data": data}).to_string();
                self.say(name, &message)?;
                self.world.carry_all();
                return self.expect_event(name, "pusher:signin_success");
            }
            "unsubscribe" => {
                let message = json!({"event": "pusher:unsubscribe", "data": {"channel": rest}});
                self.world.send(client, &text(&message.to_string()));
            }
            "close" => self
                .world
                .send(client, &frame(CLOSE, &1000u16.to_be_bytes())),
            "vanish" => self.world.disconnect(client),
            "deaf" => self.world.clients[client].deaf = true,
            "ping" => self.world.send(client, &frame(PING, b"")),
            "binary" => self.world.send(client, &frame(BINARY, rest.as_bytes())),
            _ => return Err(format!("nobody knows how to {verb}")),
        }
        Ok(())
    }

    /// The player, connected to the first worker if it has no connection yet.
    fn player(&mut self, name: &str) -> &mut Player {
        if !self.players.contains_key(name) {
            self.open(name, 0, 0);
        }
        self.players.get_mut(name).expect("it was just opened")
    }

    fn open(&mut self, name: &str, worker: usize, listener: usize) {
        let player = Player {
            client: self.world.connect(worker, listener),
            app: APP_ID.to_owned(),
            ..Player::default()
        };
        self.players.insert(name.to_owned(), player);
    }

    fn connect(&mut self, name: &str, arguments: &str) -> Done {
        let (mut worker, mut listener, mut path) = (0, 0, PATH);
        for (key, value) in notation::pairs(arguments) {
            match key {
                "worker" => worker = value.parse().map_err(|_| "which worker?")?,
                "listener" => {
                    let found = LISTENERS.iter().position(|name| *name == value);
                    listener = found.ok_or("which listener?")?;
                }
                "path" => path = value,
                _ => return Err(format!("a connection has no {key}")),
            }
        }
        self.open(name, worker, listener);
        if let Some((app, _)) = path.trim_start_matches("/app/").split_once("-key") {
            self.player(name).app = app.to_owned();
        }
        let client = self.client(name)?;
        if is_api(name) || self.world.clients[client].speech != Speech::Http {
            return Ok(());
        }
        self.world.send(client, &upgrade(path));
        self.world.carry_all();
        match self.world.clients[client].heard.pop_front() {
            Some(Heard::Answer { status: 101, .. }) => Ok(()),
            other => Err(format!("no upgrade but {other:?}")),
        }
    }

    /// Subscribes as it should be done, and takes success off the messages.
    fn subscribe(&mut self, name: &str, rest: &str) -> Done {
        let rest = &self.fill(name, rest)?;
        let (channel, channel_data) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut data = json!({"channel": channel});
        if !channel_data.is_empty() {
            data["channel_data"] = json!(channel_data);
        }
        let client = self.client(name)?;
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            self.sign(name, client, &mut data);
        }
        let message = json!({"event": "pusher:subscribe", "data": data}).to_string();
        let bytes = self.world.clients[client].speech.message(&message);
        self.world.send(client, &bytes);
        self.world.carry_all();
        self.expect_event(name, "pusher_internal:subscription_succeeded")
    }

    fn expect_event(&mut self, name: &str, event: &str) -> Done {
        let client = self.client(name)?;
        match self.world.clients[client].heard.pop_front() {
            Some(Heard::Text(text)) if text.contains(&format!("\"event\":\"{event}\"")) => Ok(()),
            other => Err(format!("no {event} but {other:?}")),
        }
    }

    fn check(&mut self, name: &str, expected: &str) -> Done {
        let expected = self.fill(name, expected)?;
        let client = self.client(name)?;
        let client = &mut self.world.clients[client];
        let (kind, rest) = expected.split_once(' ').unwrap_or((&expected, ""));
        match (kind, client.heard.pop_front()) {
            ("nothing", None) => Ok(()),
            ("end", None) if client.gone => Ok(()),
            ("ping", Some(Heard::Ping)) | ("pong", Some(Heard::Pong)) => Ok(()),
            ("binary", Some(Heard::Binary(bytes))) if bytes == rest.as_bytes() => Ok(()),
            ("close", Some(Heard::Close(code, reason))) => {
                match rest == code.to_string() || rest == format!("{code} {reason}") {
                    true => Ok(()),
                    false => Err(format!("closed with {code} {reason}")),
                }
            }
            (_, Some(Heard::Text(text))) => notation::check_text(&expected, &text),
            (_, None) => Err("received nothing".to_owned()),
            (_, Some(other)) => Err(format!("received {other:?}")),
        }
    }

    fn ask(&mut self, name: &str, line: &str) -> Done {
        let line = notation::backticks(&self.fill(name, line)?);
        let unix_seconds = self.world.now.unix_seconds();
        let player = self.player(name);
        let signing = std::mem::take(&mut player.signing);
        let client = player.client;
        self.world.clients[client].asked_for_head = line.starts_with("HEAD ");
        self.world
            .send(client, &request(&line, &signing, unix_seconds)?);
        Ok(())
    }

    fn check_answer(&mut self, name: &str, expected: &str) -> Done {
        let expected = self.fill(name, expected)?;
        let client = self.player(name).client;
        if let Some(field) = expected.strip_prefix("header ") {
            let head = &self.player(name).head;
            return match head.lines().any(|line| line == field) {
                true => Ok(()),
                false => Err(format!("the head was\n{head}")),
            };
        }
        let heard = self.world.clients[client].heard.pop_front();
        match (expected.as_str(), heard) {
            ("nothing", None) => Ok(()),
            ("end", None) if self.world.clients[client].gone => Ok(()),
            (_, None) => Err("received nothing".to_owned()),
            (expected, Some(Heard::Answer { status, head, body })) => {
                self.player(name).head = head;
                let (code, text) = expected.split_once(' ').unwrap_or((expected, ""));
                if code != status.to_string() {
                    return Err(format!("received {status} {body}"));
                }
                notation::check_text(text, &body).map_err(|why| format!("{why} ({status})"))
            }
            (_, Some(other)) => Err(format!("received {other:?}")),
        }
    }
}

/// Backends speak HTTP, everybody else is a client.
fn is_api(name: &str) -> bool {
    name.starts_with("api")
}
