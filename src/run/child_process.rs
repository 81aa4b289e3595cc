//! A child by its pid: waited for and killed. Unlike the standard library's, it can be taken over
//! from the program that this process executed before. Does not know what it does. Invariant: a pid
//! is used only until its end was seen, since the kernel may give it to somebody else then.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

#[derive(Debug)]
pub struct ChildProcess {
    pid: u32,
    ended: Option<ExitStatus>,
}

impl From<Child> for ChildProcess {
    fn from(child: Child) -> ChildProcess {
        ChildProcess::of(child.id())
    }
}

impl ChildProcess {
    /// A child of this process that nobody else waits for.
    pub fn of(pid: u32) -> ChildProcess {
        ChildProcess { pid, ended: None }
    }

    pub fn id(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(libc::WNOHANG)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(0)
    }

    /// With SIGKILL.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        // SAFETY: plain numbers; the pid is still that of our child, since nobody has waited for it.
        match unsafe { libc::kill(self.pid as libc::pid_t, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn wait_with(&mut self, flags: libc::c_int) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let mut status = 0;
            // SAFETY: `status` is a live local.
            let found = unsafe { libc::waitpid(self.pid as libc::pid_t, &mut status, flags) };
            if found < 0 {
                return Err(io::Error::last_os_error());
            }
            if found > 0 {
                self.ended = Some(ExitStatus::from_raw(status));
            }
        }
        Ok(self.ended)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_seen_to_live_and_to_end_once_and_for_all() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut child = ChildProcess::from(child);
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        let ended = child.wait().unwrap().unwrap();
        assert_eq!(ended.signal(), Some(libc::SIGKILL));
        assert_eq!(child.try_wait().unwrap(), Some(ended));
        child.kill().unwrap();
    }
}
