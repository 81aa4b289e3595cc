//! The command line's side of the control socket: asks a running server and waits for it. Does not
//! know how the server does what it is asked. Invariant: never waits without end.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::run::control::Command;
use crate::run::exit::{Exit, Failure};
use crate::run::os;
use crate::run::rundir::RunDir;
use crate::run::status::Status;

/// The master answers within half a second unless the machine is in trouble.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Children are killed after two seconds, so an end that takes longer does not come.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// The status of the largest server takes a tenth of this.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a running server says about itself; `None` when none runs.
pub fn status(dir: &RunDir) -> Result<Option<Status>, Failure> {
    let Some(mut connection) = Connection::open(dir)? else {
        return Ok(None);
    };
    let line = connection.ask(Command::Status)?;
    let status = serde_json::from_str(&line).map_err(|_| {
        Failure::new(
            Exit::Failed,
            format!("the server answers what we do not understand: {line}"),
        )
    })?;
    Ok(Some(status))
}

/// Ends a running server and waits for its end. Returns whether one ran.
pub fn stop(dir: &RunDir) -> Result<bool, Failure> {
    let Some(mut connection) = Connection::open(dir)? else {
        return Ok(false);
    };
    connection.ask(Command::Stop)?;
    connection.wait_for_end()?;
    Ok(true)
}

struct Connection {
    stream: BufReader<UnixStream>,
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
        // Somebody else's server could tell us anything.
        if !os::is_friend(&stream) {
            let message = format!("{} belongs to another user", path.display());
            return Err(Failure::new(Exit::NotPermitted, message));
        }
        Ok(Some(Connection {
            stream: BufReader::new(stream),
        }))
    }

    fn ask(&mut self, command: Command) -> Result<String, Failure> {
        self.exchange(command).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => Failure::new(Exit::Failed, "the server does not answer"),
            _ => Failure::io("the server hung up", &error),
        })
    }

    fn exchange(&mut self, command: Command) -> io::Result<String> {
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
        let line = serde_json::to_string(&command)?;
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
    fn wait_for_end(&mut self) -> Result<(), Failure> {
        let _ = self.stream.get_mut().set_read_timeout(Some(STOP_PATIENCE));
        let mut rest = [0; 64];
        match self.stream.read(&mut rest) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let seconds = STOP_PATIENCE.as_secs();
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
