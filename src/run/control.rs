//! The socket on which the command line speaks to the master: one JSON object per line each way.
//! Owns the connections and their bounds; does not know how a command is carried out. Invariant:
//! only the server's own user and root are heard, and nobody holds a place by saying nothing.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};

use crate::base::now::Moment;
use crate::run::inheritance::Keep;
use crate::run::os;

/// Commands at the same time. One more is turned away.
const CALLERS_MAX: usize = 16;
/// A command; only calls with a body are long. A longer one is turned away.
const LINE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What is read at once.
const PART_BYTES: usize = 16 * 1024;
/// Time to say something, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the command line may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Command {
    Status,
    /// Acknowledged at once; the connection ends when the server has.
    Stop {
        #[serde(default)]
        graceful: bool,
    },
    /// Answered when every worker was replaced, or the attempt was given up.
    Reload {
        #[serde(default)]
        graceful: bool,
    },
    /// Opens the log file again.
    Reopen,
    /// Executes the program anew. Answered like `Reload`, by the next program.
    Upgrade {
        #[serde(default)]
        graceful: bool,
    },
    Connections {
        limit: u32,
        /// One of the names in `COLUMNS`.
        sort: String,
        filter: String,
    },
    /// A call of the HTTP API of devices, or about token keys, by the operator. Answered with
    /// `Called`.
    Call {
        method: String,
        /// Empty for token keys.
        app_id: String,
        /// The path behind the app, decoded.
        segments: Vec<String>,
        #[serde(default)]
        query: Vec<(String, String)>,
        #[serde(default)]
        body: String,
    },
    /// Closes one connection by the id that `connections` shows.
    Close {
        id: String,
    },
}

/// The answer to `Stop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    pub pid: u32,
    /// It takes no longer, unless something has to be killed.
    pub within_seconds: u64,
}

/// What the courier answers to `Call`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    pub status: u16,
    /// JSON.
    pub body: String,
}

/// What was done, for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub done: String,
}

/// Why something was not done, and the exit code that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub error: String,
    #[serde(default)]
    pub exit: u8,
}

struct Caller {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// `None` while the answer is for us to give.
    deadline: Option<Moment>,
}

/// The listening socket and its connections, known by tokens from `first` on.
pub struct Control {
    listener: UnixListener,
    callers: BTreeMap<usize, Caller>,
    /// Never reused, so a late answer cannot reach the wrong caller.
    next: usize,
}

impl Control {
    pub fn open(
        path: &Path,
        registry: &Registry,
        token: Token,
        first: usize,
    ) -> io::Result<Control> {
        let _ = std::fs::remove_file(path);
        Control::adopt(UnixListener::bind(path)?, registry, token, first)
    }

    /// With a listener that is open already.
    pub fn adopt(
        mut listener: UnixListener,
        registry: &Registry,
        token: Token,
        first: usize,
    ) -> io::Result<Control> {
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Control {
            listener,
            callers: BTreeMap::new(),
            next: first,
        })
    }

    /// Goes on with somebody who waits for an answer.
    pub fn adopt_caller(
        &mut self,
        mut stream: UnixStream,
        registry: &Registry,
    ) -> io::Result<usize> {
        let id = self.next;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(id), both)?;
        self.next += 1;
        let caller = Caller {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            deadline: None,
        };
        self.callers.insert(id, caller);
        Ok(id)
    }

    /// The listener, for the program that takes over.
    pub fn leave(&self, keep: &mut Keep) -> RawFd {
        keep.note(&self.listener)
    }

    /// A caller, likewise; `None` when it has gone.
    pub fn leave_caller(&self, id: usize, keep: &mut Keep) -> Option<RawFd> {
        self.callers
            .get(&id)
            .map(|caller| keep.note(&caller.stream))
    }

    /// Takes in whoever waits.
    pub fn accept(&mut self, registry: &Registry, now: Moment) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.admit(stream, registry, now);
        }
    }

    fn admit(&mut self, mut stream: UnixStream, registry: &Registry, now: Moment) {
        if !os::is_friend(&stream) || self.callers.len() >= CALLERS_MAX {
            let _ = stream.write(b"{\"error\":\"turned away\"}\n");
            return;
        }
        let id = self.next;
        let both = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, Token(id), both).is_ok() {
            self.next += 1;
            self.callers.insert(
                id,
                Caller {
                    stream,
                    input: Vec::new(),
                    output: Vec::new(),
                    deadline: Some(now + PATIENCE),
                },
            );
        }
    }

    /// The connection `id` may be read or written. Returns a command when one is complete.
    pub fn handle_ready(&mut self, id: usize, now: Moment) -> Option<Command> {
        let caller = self.callers.get_mut(&id)?;
        let heard = caller.flush().and_then(|()| caller.read());
        match heard {
            Ok(None) => None,
            Ok(Some(command)) => {
                caller.deadline = None;
                Some(command)
            }
            Err(error) => {
                if error.kind() == ErrorKind::InvalidData {
                    self.reply(id, "{\"error\":\"unknown command\"}", now);
                }
                self.callers.remove(&id);
                None
            }
        }
    }

    /// Answers one line of JSON.
    pub fn answer(&mut self, id: usize, value: &impl Serialize, now: Moment) {
        let line = serde_json::to_string(value);
        let unwritten = || "{\"error\":\"the answer cannot be written\",\"exit\":1}".to_string();
        self.reply(id, &line.unwrap_or_else(|_| unwritten()), now);
    }

    /// Answers one line. Somebody who is gone already is not missed.
    pub fn reply(&mut self, id: usize, line: &str, now: Moment) {
        let Some(caller) = self.callers.get_mut(&id) else {
            return;
        };
        caller.output.extend_from_slice(line.as_bytes());
        caller.output.push(b'\n');
        caller.deadline = Some(now + PATIENCE);
        if caller.flush().is_err() {
            self.callers.remove(&id);
        }
    }

    /// Keeps the connection until the process ends: its end is the message.
    pub fn keep(&mut self, id: usize) {
        if let Some(caller) = self.callers.get_mut(&id) {
            caller.deadline = None;
        }
    }

    /// Drops whoever took too long.
    pub fn handle_elapsed(&mut self, now: Moment) {
        self.callers
            .retain(|_, caller| caller.deadline.is_none_or(|deadline| deadline > now));
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.callers
            .values()
            .filter_map(|caller| caller.deadline)
            .min()
    }
}

impl Caller {
    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One command at most: the next is read after the answer to this one.
    fn read(&mut self) -> io::Result<Option<Command>> {
        let mut buffer = [0; PART_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.input.len() > LINE_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        let Some(end) = self.input.iter().position(|&b| b == b'\n') else {
            return Ok(None);
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|_| ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream as Stream;
    use std::path::PathBuf;

    use mio::Poll;

    use super::*;

    struct Desk {
        poll: Poll,
        control: Control,
        path: PathBuf,
    }

    fn desk(name: &str) -> Desk {
        let path = std::env::temp_dir().join(format!("lineman-{}-{name}.sock", std::process::id()));
        let poll = Poll::new().unwrap();
        let control = Control::open(&path, poll.registry(), Token(1), 10).unwrap();
        Desk {
            poll,
            control,
            path,
        }
    }

    impl Desk {
        fn call(&mut self) -> Stream {
            let stream = Stream::connect(&self.path).unwrap();
            self.control.accept(self.poll.registry(), Moment::default());
            stream
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    #[test]
    fn a_command_cut_in_two_is_heard_once_and_answered() {
        let mut desk = desk("cut");
        let mut stream = desk.call();
        stream.write_all(b"{\"command\":").unwrap();
        assert_eq!(desk.control.handle_ready(10, Moment::default()), None);
        stream.write_all(b"\"status\"}\n").unwrap();
        assert_eq!(
            desk.control.handle_ready(10, Moment::default()),
            Some(Command::Status)
        );
        desk.control.reply(10, "{}", Moment::default());
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line, "{}\n");
    }

    #[test]
    fn nonsense_and_endless_lines_are_turned_away() {
        for bytes in [b"what\n".to_vec(), vec![b' '; LINE_BYTES_MAX + 1]] {
            let mut desk = desk(&format!("nonsense{}", bytes.len()));
            let mut stream = desk.call();
            // More than the kernel takes at once; what comes after the end is refused.
            let writer = std::thread::spawn(move || stream.write_all(&bytes));
            while !desk.control.callers.is_empty() {
                assert_eq!(desk.control.handle_ready(10, Moment::default()), None);
            }
            let _ = writer.join().unwrap();
        }
    }

    #[test]
    fn silence_is_not_waited_for() {
        let mut desk = desk("silence");
        let _stream = desk.call();
        let deadline = desk.control.deadline().unwrap();
        assert_eq!(deadline, Moment::default() + PATIENCE);
        desk.control.handle_elapsed(deadline);
        assert!(desk.control.callers.is_empty());
    }

    #[test]
    fn there_is_a_limit_to_callers() {
        let mut desk = desk("limit");
        let streams: Vec<Stream> = (0..CALLERS_MAX + 3).map(|_| desk.call()).collect();
        assert_eq!(desk.control.callers.len(), CALLERS_MAX);
        drop(streams);
    }
}
