//! How a process of ours ended, in words for the log and for `status`.

use std::fmt;

use crate::run::exit::ChildExit;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
    /// It never began.
    NotStarted(String),
    /// We ended it, for this reason.
    Condemned(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exit(code) => {
                write!(f, "exit code {code}")?;
                ChildExit::words(*code).map_or(Ok(()), |words| write!(f, ": {words}"))
            }
            End::Signal(signal) => {
                write!(f, "killed by signal {signal} ({})", signal_name(*signal))
            }
            End::NotStarted(why) => write!(f, "could not be started: {why}"),
            End::Condemned(why) => f.write_str(why),
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGSYS => "SIGSYS",
        libc::SIGXCPU => "SIGXCPU",
        _ => "no name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(End::Signal(9).to_string(), "killed by signal 9 (SIGKILL)");
        assert_eq!(End::Exit(1).to_string(), "exit code 1");
        let bug = End::Exit(12).to_string();
        assert_eq!(bug, "exit code 12: a bug, the log says where");
    }
}
