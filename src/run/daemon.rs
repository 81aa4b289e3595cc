//! Leaving the terminal: `start -d` goes on in a process of its own session, and the command that
//! the user typed waits until that one says how it went. Does not know what is started. Invariant:
//! runs before the program has a second thread.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;

use crate::run::exit::{Exit, Failure};
use crate::run::os::{self, Forked};

/// The end of the pipe on which the daemon reports, once.
#[derive(Debug)]
pub struct Readiness {
    pipe: PipeWriter,
}

impl Readiness {
    /// It runs: `text` is for the user.
    pub fn ready(mut self, text: &str) {
        // The command that waited may have been interrupted; nobody is left to tell then.
        let _ = self.pipe.write_all(&[Exit::Done as u8]);
        let _ = self.pipe.write_all(text.as_bytes());
    }

    /// It does not run.
    pub fn failed(mut self, failure: &Failure) {
        let _ = self.pipe.write_all(&[failure.exit as u8]);
        let _ = self.pipe.write_all(failure.message.as_bytes());
    }
}

/// Which of the two processes returned from `detach`.
pub enum Detached {
    /// The command: what the daemon reported, and the exit code that goes with it.
    Command { code: u8, text: String },
    /// The daemon, to go on.
    Daemon(Readiness),
}

/// Splits off a daemon. The program must have one thread.
pub fn detach() -> io::Result<Detached> {
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: `start` detaches before it starts the log writer or anything else.
    match unsafe { os::fork() }? {
        Forked::Parent(pid) => {
            drop(writer);
            os::wait_for(pid);
            let mut report = Vec::new();
            reader.read_to_end(&mut report)?;
            Ok(read_report(&report))
        }
        Forked::Child => {
            drop(reader);
            match leave() {
                Ok(()) => Ok(Detached::Daemon(Readiness { pipe: writer })),
                Err(error) => {
                    Readiness { pipe: writer }.failed(&Failure::io("cannot detach", &error));
                    os::exit_at_once(Exit::Failed as u8);
                }
            }
        }
    }
}

fn read_report(report: &[u8]) -> Detached {
    match report.split_first() {
        Some((&code, text)) => Detached::Command {
            code,
            text: String::from_utf8_lossy(text).into_owned(),
        },
        None => Detached::Command {
            code: Exit::Failed as u8,
            text: "the server ended before it was ready; its log tells more".to_string(),
        },
    }
}

/// A session of its own, and a second fork so that it can never get a terminal again.
fn leave() -> io::Result<()> {
    os::new_session()?;
    // SAFETY: as above; the first fork left this process with one thread.
    if let Forked::Parent(_) = unsafe { os::fork() }? {
        os::exit_at_once(0);
    }
    // A daemon must not keep the directory it was started from from being unmounted.
    std::env::set_current_dir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for target in 0..=2 {
        os::place_at(null.as_raw_fd(), target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_carries_its_code_and_silence_is_a_failure() {
        let check = |report: &[u8], code, text: &str| match read_report(report) {
            Detached::Command {
                code: found,
                text: said,
            } => {
                assert_eq!(found, code);
                assert!(said.contains(text), "{said}");
            }
            Detached::Daemon(_) => panic!("a report makes no daemon"),
        };
        check(b"\0Lineman 1", 0, "Lineman 1");
        check(b"\x01no", 1, "no");
        check(b"", 1, "before it was ready");
    }
}
