//! Descriptors handed from one program to the next in systemd's form: they start at number 3,
//! `LISTEN_FDS` counts them, `LISTEN_FDNAMES` names them. One reader serves the master's children
//! and socket activation. Does not know what a name stands for. Invariant: each descriptor has one
//! owner.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::run::os;

/// The number of the first descriptor, from sd_listen_fds(3).
pub const FIRST: RawFd = 3;

/// A worker of 64 threads and some listeners stays far below; a number beyond is nonsense.
const COUNT_MAX: usize = 4096;

/// The variable by which our own master says that the descriptors are for its child. A parent
/// cannot know the pid of a child before it forks, so `LISTEN_PID` cannot be used.
pub const MASTER: &str = "LINEMAN_MASTER";

/// Whether the process that started this one is a master that tells it so.
pub fn is_child() -> bool {
    let master = std::env::var(MASTER).ok();
    master == Some(std::os::unix::process::parent_id().to_string())
}

/// What to put into the environment of a child that gets descriptors with these names.
pub fn environment(names: &[String], master: u32) -> [(&'static str, String); 3] {
    [
        ("LISTEN_FDS", names.len().to_string()),
        ("LISTEN_FDNAMES", names.join(":")),
        (MASTER, master.to_string()),
    ]
}

/// The names in order, if the descriptors are meant for this process. Pure.
fn names(
    variable: impl Fn(&str) -> Option<String>,
    pid: u32,
    parent: u32,
) -> Result<Vec<String>, String> {
    let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
    let meant = match number(MASTER) {
        Some(master) => master == parent,
        None => number("LISTEN_PID") == Some(pid),
    };
    if !meant {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").ok_or("LISTEN_FDS is not a number")? as usize;
    if count > COUNT_MAX {
        return Err(format!("LISTEN_FDS is {count}, more than {COUNT_MAX}"));
    }
    let names: Vec<String> = match variable("LISTEN_FDNAMES") {
        Some(text) if count > 0 => text.split(':').map(str::to_string).collect(),
        // systemd's word for a socket nobody named.
        _ => vec!["unknown".to_string(); count],
    };
    if names.len() != count {
        return Err(format!("{count} descriptors, but {} names", names.len()));
    }
    Ok(names)
}

/// All descriptors that were handed over, with their names; a second call gets none.
fn received() -> Result<Vec<(String, OwnedFd)>, String> {
    static RECEIVED: AtomicBool = AtomicBool::new(false);
    if RECEIVED.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let variable = |name: &str| std::env::var(name).ok();
    let parent = std::os::unix::process::parent_id();
    let names = names(variable, std::process::id(), parent)?;
    let adopt = |(name, fd): (String, RawFd)| {
        // SAFETY: whoever set the variables left these descriptors open for us, nothing in
        // this program opens any before this call, and the flag lets it happen once.
        let owned = unsafe { os::adopt(fd) }
            .map_err(|error| format!("descriptor {fd} ({name}): {error}"))?;
        Ok((name, owned))
    };
    names.into_iter().zip(FIRST..).map(adopt).collect()
}

/// Descriptors received and not taken yet.
#[derive(Debug, Default)]
pub struct Handover {
    found: HashMap<String, OwnedFd>,
}

impl Handover {
    /// Takes the descriptors over; a second call gets none.
    pub fn receive() -> Result<Handover, String> {
        let mut found = HashMap::new();
        for (name, fd) in received()? {
            if found.insert(name.clone(), fd).is_some() {
                return Err(format!("two descriptors are named {name}"));
            }
        }
        Ok(Handover { found })
    }

    pub fn take(&mut self, name: &str) -> Result<OwnedFd, String> {
        let missing = || format!("no descriptor named {name} was handed over");
        self.found.remove(name).ok_or_else(missing)
    }

    /// The slots a worker was given, in order: the numbers in `master.slotN`.
    pub fn slots(&self) -> Vec<u32> {
        let number = |name: &String| name.strip_prefix("master.slot")?.parse().ok();
        let mut slots: Vec<u32> = self.found.keys().filter_map(number).collect();
        slots.sort_unstable();
        slots
    }
}

/// The socket of the switchboard, for workers that cannot look it up by its path.
pub const SWITCHBOARD_NAME: &str = "switchboard";
/// That of the courier, for the switchboard.
pub const COURIER_NAME: &str = "courier";

/// Listening sockets that a service manager opened for us.
#[derive(Debug, Default)]
pub struct Activated {
    listeners: Vec<TcpListener>,
}

impl Activated {
    /// Takes over what was handed to us; to be called before anything opens a descriptor.
    pub fn receive() -> Result<Activated, String> {
        let mut listeners = Vec::new();
        for (name, fd) in received()? {
            let listener = TcpListener::from(fd);
            let address = listener.local_addr();
            let address = address.map_err(|error| format!("the socket {name}: {error}"))?;
            log::debug!("{address} was handed over as {name}");
            listeners.push(listener);
        }
        Ok(Activated { listeners })
    }

    /// The socket for this address, if there is one.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let same = |it: &TcpListener| it.local_addr().is_ok_and(|found| found == address);
        let place = self.listeners.iter().position(same)?;
        Some(self.listeners.swap_remove(place))
    }

    /// Addresses that nobody has taken.
    pub fn left(&self) -> Vec<SocketAddr> {
        let addresses = self.listeners.iter().map(TcpListener::local_addr);
        addresses.filter_map(Result::ok).collect()
    }
}

/// The name of the pair between the master and the reactor in `slot`.
pub fn master_name(slot: u32) -> String {
    format!("master.slot{slot}")
}

/// The name of the listener of `slot` for the `[[listen]]` table with number `index`.
pub fn listener_name(index: usize, slot: u32) -> String {
    format!("listen.{index}.slot{slot}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], expected: Result<&[&str], ()>) {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string())
        };
        let found = names(variable, 10, 9).map_err(drop);
        let expected = expected.map(|names| names.iter().map(|name| name.to_string()).collect());
        assert_eq!(found, expected, "{variables:?}");
    }

    #[test]
    fn what_the_environment_says_is_what_is_read() {
        let given = vec!["config".to_string(), "master.slot0".to_string()];
        let variables = environment(&given, 9);
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.clone())
        };
        assert_eq!(names(variable, 10, 9), Ok(given));
    }

    #[test]
    fn descriptors_for_another_process_are_left_alone() {
        check(&[("LISTEN_FDS", "1")], Ok(&[]));
        check(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "11")], Ok(&[]));
        check(&[("LISTEN_FDS", "1"), ("LINEMAN_MASTER", "8")], Ok(&[]));
        // A child of ours that starts another program leaves its own pid behind.
        check(
            &[
                ("LISTEN_FDS", "1"),
                ("LINEMAN_MASTER", "8"),
                ("LISTEN_PID", "10"),
            ],
            Ok(&[]),
        );
    }

    #[test]
    fn systemd_may_name_its_sockets_or_not() {
        check(
            &[("LISTEN_FDS", "2"), ("LISTEN_PID", "10")],
            Ok(&["unknown", "unknown"]),
        );
        let named = [
            ("LISTEN_FDS", "2"),
            ("LISTEN_PID", "10"),
            ("LISTEN_FDNAMES", "a:b"),
        ];
        check(&named, Ok(&["a", "b"]));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        check(&[("LISTEN_PID", "10")], Err(()));
        check(&[("LISTEN_PID", "10"), ("LISTEN_FDS", "-1")], Err(()));
        check(&[("LISTEN_PID", "10"), ("LISTEN_FDS", "99999")], Err(()));
        check(
            &[
                ("LISTEN_PID", "10"),
                ("LISTEN_FDS", "2"),
                ("LISTEN_FDNAMES", "a"),
            ],
            Err(()),
        );
    }
}
