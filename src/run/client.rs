//! The command line's side of the control socket: asks a running server and waits for it. Does not
//! know how the server does what it is asked. Invariant: never waits without end.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::run::connections::Connections;
use crate::run::control::{Called, Command, Done, Failed, Stopping};
use crate::run::exit::{Exit, Failure};
use crate::run::os;
use crate::run::rundir::RunDir;
use crate::run::status::Status;

/// The master answers within half a second unless the machine is in trouble.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Children are killed after two seconds, so an end that takes longer does not come.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// A reload ends when each worker has a successor or one has failed, which the master bounds.
const RELOAD_PATIENCE: Duration = Duration::from_secs(600);
/// Longer than the master waits for the courier.
const CALL_PATIENCE: Duration = Duration::from_secs(15);
/// How the master says that the courier does not answer now.
pub const COURIER_AWAY: &str = "the courier ";
/// The longest list of connections takes half of this.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a running server says about itself; `None` when none runs.
pub fn status(dir: &RunDir) -> Result<Option<Status>, Failure> {
    let Some(mut connection) = Connection::open(dir)? else {
        return Ok(None);
    };
    read(&connection.ask(&Command::Status)?).map(Some)
}

/// Ends a running server and waits for its end. Returns whether one ran.
pub fn stop(dir: &RunDir, graceful: bool) -> Result<bool, Failure> {
    let Some(mut connection) = Connection::open(dir)? else {
        return Ok(false);
    };
    let answer: Stopping = read(&connection.ask(&Command::Stop { graceful })?)?;
    let patience = STOP_PATIENCE + Duration::from_secs(answer.within_seconds);
    connection.wait_for_end(patience)?;
    Ok(true)
}

/// Has all workers replaced and waits until they are. `None` when no server runs.
pub fn reload(dir: &RunDir, graceful: bool) -> Result<Option<String>, Failure> {
    done(dir, &Command::Reload { graceful }, RELOAD_PATIENCE)
}

/// Has the program executed anew. `None` when no server runs.
pub fn upgrade(dir: &RunDir, graceful: bool) -> Result<Option<String>, Failure> {
    done(dir, &Command::Upgrade { graceful }, RELOAD_PATIENCE)
}

/// Has the log file opened again. `None` when no server runs.
pub fn reopen(dir: &RunDir) -> Result<Option<String>, Failure> {
    done(dir, &Command::Reopen, ANSWER_PATIENCE)
}

/// Closes a connection. `None` when no server runs.
pub fn close(dir: &RunDir, id: &str) -> Result<Option<String>, Failure> {
    let id = id.to_string();
    done(dir, &Command::Close { id }, ANSWER_PATIENCE)
}

/// What a running server says about its connections; `None` when none runs.
pub fn connections(dir: &RunDir, command: Command) -> Result<Option<Connections>, Failure> {
    let Some(mut connection) = Connection::open(dir)? else {
        return Ok(None);
    };
    read(&connection.ask(&command)?).map(Some)
}

/// Has the courier answer a call. `None` when no server runs.
pub fn call(dir: &RunDir, command: &Command) -> Result<Option<Called>, Failure> {
    let Some(mut connection) = Connection::open(dir)? else {
        return Ok(None);
    };
    connection.patience = CALL_PATIENCE;
    read(&connection.ask(command)?).map(Some)
}

/// Has something done that is answered in words.
fn done(dir: &RunDir, command: &Command, patience: Duration) -> Result<Option<String>, Failure> {
    let Some(mut connection) = Connection::open(dir)? else {
        return Ok(None);
    };
    connection.patience = patience;
    let answer: Done = read(&connection.ask(command)?)?;
    Ok(Some(answer.done))
}

/// The answer, or the failure that came in its place.
fn read<T: DeserializeOwned>(line: &str) -> Result<T, Failure> {
    if let Ok(Failed { error, exit }) = serde_json::from_str(line) {
        return Err(Failure::new(Exit::from_code(exit), error));
    }
    serde_json::from_str(line).map_err(|_| {
        let shown: String = line.chars().take(200).collect();
        let message = format!("the server answers what we do not understand: {shown}");
        Failure::new(Exit::Failed, message)
    })
}

struct Connection {
    stream: BufReader<UnixStream>,
    patience: Duration,
}

impl Connection {
    fn open(dir: &RunDir) -> Result<Option<Connection>, Failure> {
        let path = dir.control_socket();
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            // No socket, or one left by a server that was killed.
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::ConnectionRefused].contains(&error.kind()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Failure::io(path.display(), &error)),
        };
        // Somebody else's server could tell us anything. Root looks after everybody's: the
        // directory is its own or one that it was told of.
        if os::effective_uid() != 0 && !os::is_friend(&stream) {
            let message = format!("{} belongs to another user", path.display());
            return Err(Failure::new(Exit::NotPermitted, message));
        }
        Ok(Some(Connection {
            stream: BufReader::new(stream),
            patience: ANSWER_PATIENCE,
        }))
    }

    fn ask(&mut self, command: &Command) -> Result<String, Failure> {
        self.exchange(command).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => Failure::new(Exit::Failed, "the server does not answer"),
            _ => Failure::io("the server hung up", &error),
        })
    }

    fn exchange(&mut self, command: &Command) -> io::Result<String> {
        let patience = self.patience;
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
        let line = serde_json::to_string(command)?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        self.stream
            .by_ref()
            .take(ANSWER_BYTES_MAX)
            .read_line(&mut answer)?;
        if answer.ends_with('\n') {
            Ok(answer)
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }

    /// The kernel closes the connection when the master is gone.
    fn wait_for_end(&mut self, patience: Duration) -> Result<(), Failure> {
        let _ = self.stream.get_mut().set_read_timeout(Some(patience));
        let mut rest = [0; 64];
        match self.stream.read(&mut rest) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let seconds = patience.as_secs();
                Err(Failure::new(
                    Exit::Failed,
                    format!("still running after {seconds} s"),
                ))
            }
            // An end, or an error that means one.
            _ => Ok(()),
        }
    }
}
