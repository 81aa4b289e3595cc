//! A conversation with Redis: Greeting → Ready, or Over. It signs in, loads scripts, matches answers
//! with what was asked, and knows when Redis has been silent for too long. It does not know what is
//! asked.
//!
//! Invariants: whatever was asked is answered once, in its order, or handed back by `abandon`. What
//! is pushed stands among the answers where Redis put it. No byte is scanned twice, however the
//! stream is cut.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::bytes::Inbox;
use crate::base::now::{Moment, Now};
use crate::wire::resp::{Scanner, Value, command, parse};

/// An answer is owed no longer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// As whom, and in which database.
#[derive(Clone, Default)]
pub struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: u32,
}

/// See the file's head. `T` says what an answer is about.
pub struct Redis<T> {
    /// Answers of the greeting that are still owed.
    greeting: VecDeque<Step>,
    scripts: Vec<String>,
    asked: VecDeque<T>,
    /// Since when Redis owes something without having said anything.
    owed: Option<Moment>,
    scanner: Scanner,
}

/// What a part of the greeting was.
enum Step {
    Hello,
    Select,
    Script,
}

/// What was understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a, T> {
    /// Ask, from now on.
    Ready,
    Answer(T, Value<'a>),
    Message {
        on: &'a str,
        message: &'a [u8],
    },
}

impl<T> Redis<T> {
    /// The connection stands; the bytes are to be sent.
    pub fn open(login: &Login, scripts: &[&str], now: Now) -> (Redis<T>, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut greeting = VecDeque::from([Step::Hello]);
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &login.password {
            let user = login.user.as_deref().unwrap_or("default");
            hello.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        hello.extend([b"SETNAME".as_slice(), b"lineman"]);
        command(&mut bytes, &hello);
        if login.database > 0 {
            let database = login.database.to_string();
            command(&mut bytes, &[b"SELECT", database.as_bytes()]);
            greeting.push_back(Step::Select);
        }
        for script in scripts {
            command(&mut bytes, &[b"SCRIPT", b"LOAD", script.as_bytes()]);
            greeting.push_back(Step::Script);
        }
        let redis = Redis {
            greeting,
            scripts: Vec::new(),
            asked: VecDeque::new(),
            owed: Some(now.moment + PATIENCE),
            scanner: Scanner::default(),
        };
        (redis, bytes)
    }

    /// Appends a command that has an answer.
    pub fn ask(&mut self, parts: &[&[u8]], about: T, to: &mut Vec<u8>, now: Now) {
        command(to, parts);
        self.asked.push_back(about);
        self.owed.get_or_insert(now.moment + PATIENCE);
    }

    /// The same for a script, by its place among those that were loaded. None of them has named keys.
    pub fn run(&mut self, script: usize, parts: &[&[u8]], about: T, to: &mut Vec<u8>, now: Now) {
        let digest = self
            .scripts
            .get(script)
            .map_or("", String::as_str)
            .to_owned();
        let mut whole: Vec<&[u8]> = vec![b"EVALSHA", digest.as_bytes(), b"0"];
        whole.extend_from_slice(parts);
        self.ask(&whole, about, to, now);
    }

    /// Appends a command that is answered by pushes alone, as SUBSCRIBE is.
    pub fn tell(&mut self, parts: &[&[u8]], to: &mut Vec<u8>) {
        command(to, parts);
    }

    /// What is answered no more.
    pub fn abandon(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.asked).into_iter()
    }

    /// When Redis has been silent for too long.
    pub fn deadline(&self) -> Option<Moment> {
        self.owed
    }

    /// How many answers are owed.
    pub fn owes(&self) -> usize {
        self.asked.len()
    }

    /// Reads on; an error is why the conversation is over, for people. What is left in the inbox is
    /// wanted again, with more behind it.
    pub fn next<'a>(
        &mut self,
        inbox: &mut Inbox<'a>,
        now: Now,
    ) -> Result<Option<Heard<'a, T>>, String> {
        let garbled = |_| "it does not speak the protocol of Redis".to_string();
        while let Some(length) = self.scanner.next(inbox.rest()).map_err(garbled)? {
            let value = parse(inbox.take(length)).map_err(garbled)?;
            if let Value::Push(parts) = &value {
                if let [kind, on, message] = &parts[..]
                    && let (Some("message"), Some(on)) = (kind.text(), on.text())
                    && let Some(message) = message.bytes()
                {
                    return Ok(Some(Heard::Message { on, message }));
                }
                continue;
            }
            if let Some(step) = self.greeting.pop_front() {
                self.greeted(&step, &value)?;
                if self.greeting.is_empty() {
                    self.owed = None;
                    return Ok(Some(Heard::Ready));
                }
                continue;
            }
            let about = self.asked.pop_front();
            let about = about.ok_or("it answers what was not asked")?;
            self.owed = (!self.asked.is_empty()).then(|| now.moment + PATIENCE);
            return Ok(Some(Heard::Answer(about, value)));
        }
        Ok(None)
    }

    fn greeted(&mut self, step: &Step, value: &Value<'_>) -> Result<(), String> {
        if let Value::Error(why) = value {
            let why = String::from_utf8_lossy(why);
            return Err(match step {
                Step::Hello if why.contains("unknown command") || why.contains("NOPROTO") => {
                    format!("Redis 6 or newer is needed ({why})")
                }
                _ => why.into_owned(),
            });
        }
        if let (Step::Script, Some(digest)) = (step, value.text()) {
            self.scripts.push(digest.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        moment: Moment::from_micros(0),
        unix_ms: 0,
    };

    fn open() -> (Redis<u8>, Vec<u8>) {
        let login = Login {
            user: None,
            password: Some("tiger".into()),
            database: 3,
        };
        Redis::open(&login, &["return 1"], NOW)
    }

    /// What is heard of a stream, each as text.
    fn hear(redis: &mut Redis<u8>, held: &mut Vec<u8>) -> Result<Vec<String>, String> {
        let mut inbox = Inbox::new(held);
        let mut heard = Vec::new();
        while let Some(one) = redis.next(&mut inbox, NOW)? {
            heard.push(format!("{one:?}"));
        }
        let taken = inbox.taken();
        held.drain(..taken);
        Ok(heard)
    }

    const GREETED: &[u8] = b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n+OK\r\n$2\r\nab\r\n";

    #[test]
    fn it_signs_in_chooses_and_loads_before_anything_is_asked() {
        let (mut redis, bytes) = open();
        let text = String::from_utf8(bytes).expect("text");
        for word in ["HELLO", "AUTH", "default", "tiger", "SELECT", "SCRIPT"] {
            assert!(text.contains(word), "{word}");
        }
        assert_eq!(
            hear(&mut redis, &mut GREETED.to_vec()),
            Ok(vec!["Ready".into()])
        );
        assert_eq!(redis.deadline(), None);
        let mut bytes = Vec::new();
        redis.run(0, &[b"x"], 1, &mut bytes, NOW);
        assert!(bytes.ends_with(b"EVALSHA\r\n$2\r\nab\r\n$1\r\n0\r\n$1\r\nx\r\n"));
    }

    #[test]
    fn answers_and_messages_keep_their_order_however_the_stream_is_cut() {
        let stream = b":1\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n\
            >3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n-ERR x\r\n";
        for cut in 0..=stream.len() {
            let (mut redis, _) = open();
            hear(&mut redis, &mut GREETED.to_vec()).expect("greeted");
            let mut bytes = Vec::new();
            redis.ask(&[b"A"], 1, &mut bytes, NOW);
            redis.ask(&[b"B"], 2, &mut bytes, NOW);
            let (mut held, mut heard) = (Vec::new(), Vec::new());
            for part in [&stream[..cut], &stream[cut..]] {
                held.extend_from_slice(part);
                heard.extend(hear(&mut redis, &mut held).expect("well-formed"));
            }
            assert_eq!(heard.len(), 3, "{heard:?}");
            assert_eq!(heard[0], "Answer(1, Int(1))");
            assert!(heard[1].starts_with("Message { on: \"c\""), "{heard:?}");
            assert!(heard[2].starts_with("Answer(2, Error("), "{heard:?}");
            assert_eq!((redis.owes(), redis.deadline()), (0, None));
        }
    }

    #[test]
    fn what_is_owed_has_a_deadline_and_is_handed_back() {
        let (mut redis, _) = open();
        assert_eq!(redis.deadline(), Some(NOW.moment + PATIENCE));
        hear(&mut redis, &mut GREETED.to_vec()).expect("greeted");
        redis.ask(&[b"A"], 1, &mut Vec::new(), NOW);
        assert_eq!(redis.deadline(), Some(NOW.moment + PATIENCE));
        assert_eq!(redis.abandon().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_refused_greeting_and_a_stranger_end_it_with_a_reason() {
        let (mut redis, _) = open();
        let wrong = b"-WRONGPASS invalid\r\n".to_vec();
        assert!(hear(&mut redis, &mut wrong.clone()).is_err_and(|why| why.contains("WRONGPASS")));
        let (mut redis, _) = open();
        let old = b"-ERR unknown command `HELLO`\r\n".to_vec();
        assert!(hear(&mut redis, &mut old.clone()).is_err_and(|why| why.contains("Redis 6")));
        let (mut redis, _) = open();
        assert!(hear(&mut redis, &mut b"HTTP/1.1 400\r\n".to_vec()).is_err());
        let (mut redis, _) = open();
        hear(&mut redis, &mut GREETED.to_vec()).expect("greeted");
        assert!(
            hear(&mut redis, &mut b":1\r\n".to_vec()).is_err(),
            "not asked"
        );
    }
}
