//! How a command ends: one code for each outcome, and the words that go with a failure. The codes
//! follow the Linux Standard Base where it has one. Invariant: a code, once published, keeps its
//! meaning.

use std::fmt;
use std::process::ExitCode;

/// The exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for `stop` also when nothing was running, for `status` when the server runs.
    Done = 0,
    /// It did not work: the port is taken, the server died, it did not answer in time.
    Failed = 1,
    /// The command line is wrong (clap ends the program with this code itself).
    Usage = 2,
    /// `status`, `reload`, `connections`: no server is running with this configuration.
    NotRunning = 3,
    /// The user may not do this.
    NotPermitted = 4,
    /// The configuration is wrong.
    BadConfig = 6,
    /// `start`: a server is running with this configuration already.
    AlreadyRunning = 8,
}

impl Exit {
    pub const ALL: [Exit; 7] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotRunning,
        Exit::NotPermitted,
        Exit::BadConfig,
        Exit::AlreadyRunning,
    ];

    /// Reads a code that another process of ours reported.
    pub fn from_code(code: u8) -> Exit {
        Exit::ALL
            .into_iter()
            .find(|exit| *exit as u8 == code)
            .unwrap_or(Exit::Failed)
    }
}

/// The exit code of a worker or the switchboard; only the master reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChildExit {
    /// It was told to stop, or the master is gone.
    Ordered = 0,
    /// What the master hands over is not there: the role was started by hand.
    NoHandover = 10,
    /// A reactor could not start or had to give up.
    ReactorFailed = 11,
    /// A reactor met a bug.
    ReactorPanicked = 12,
    /// A reactor was stuck, and has told where.
    Stuck = 13,
}

impl ChildExit {
    pub const ALL: [ChildExit; 5] = [
        ChildExit::Ordered,
        ChildExit::NoHandover,
        ChildExit::ReactorFailed,
        ChildExit::ReactorPanicked,
        ChildExit::Stuck,
    ];

    /// What a code of a child means; `None` for one that is not ours.
    pub fn words(code: i32) -> Option<&'static str> {
        let found = ChildExit::ALL.into_iter().find(|it| *it as i32 == code);
        found.map(|exit| match exit {
            ChildExit::Ordered => "as ordered",
            ChildExit::NoHandover => "it was started by hand",
            ChildExit::ReactorFailed => "a reactor gave up, the log says why",
            ChildExit::ReactorPanicked => "a bug, the log says where",
            ChildExit::Stuck => "it was stuck",
        })
    }
}

/// The table for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; `stop`: also when nothing was running; `status`: the server runs
  1  failed: the port is taken, the server died or did not answer in time, a worker could not be
     replaced
  2  the command line is wrong
  3  `status`, `reload`, `connections`: not running
  4  not permitted
  6  the configuration is wrong; `reload`: or changes what cannot change while the server runs
  8  `start`: already running";

/// A command that failed: the code, and what to tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// Without a line end.
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
        }
    }

    /// Something the operating system refused; the refusal itself tells whether permission lacked.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Failure {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("{what}: {error}"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<ChildExit> for ExitCode {
    fn from(exit: ChildExit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
