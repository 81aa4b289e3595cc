//! What a master leaves to the program that it executes in its own place: the configuration, the
//! numbers of open descriptors, its children. Owns the shape and its version; does not know how it
//! is gathered or taken up. Invariant: a program that does not know the version says so in its
//! trial, before anything is given up.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use crate::run::children::Role;
use crate::run::handed_config::Handed;
use crate::run::os;

/// To be raised with any change of the shape, of `wire/control`, which the new master speaks with
/// the old children, and of the cells in `net/admission`, which both count in.
pub const VERSION: u32 = 3;

/// What a program says in its trial if it can take over. Another one may well end without a fault
/// whatever it is told.
pub const ACCEPTED: &str = "ready to take over\n";

#[derive(Serialize, Deserialize)]
pub struct Inheritance {
    pub version: u32,
    pub config: Handed,
    /// As it was typed, for the commands that are shown.
    pub asked: Option<String>,
    pub daemon: bool,
    /// Whether clients are let go over `drain_seconds`.
    pub graceful: bool,
    pub lock: RawFd,
    pub control: RawFd,
    /// Who asked for the upgrade, and waits for its end.
    pub caller: Option<RawFd>,
    pub listeners: Vec<Listeners>,
    pub links: RawFd,
    /// The same for the courier, if there is one.
    pub courier: Option<RawFd>,
    pub ledger: RawFd,
    /// The epoch and the secret of the session tickets.
    pub tickets: Option<(u64, [u8; 32])>,
    pub children: Vec<Heir>,
    /// How many lives were given out.
    pub lives: u32,
}

/// The sockets of one `[[listen]]` table.
#[derive(Serialize, Deserialize)]
pub enum Listeners {
    /// One for each slot; `None` for one that rests.
    Own(Vec<Option<RawFd>>),
    /// With device and inode of its file.
    Shared(RawFd, (u64, u64)),
    Activated(RawFd),
}

/// One living child.
#[derive(Serialize, Deserialize)]
pub struct Heir {
    pub pid: u32,
    pub role: Role,
    pub number: u32,
    pub life: u32,
    pub restarts: u64,
    pub last_end: Option<String>,
    /// For how long it may still let its clients go; `None` while it serves.
    pub leaves_within_ms: Option<u64>,
    /// The pairs to its reactors.
    pub links: Vec<Pair>,
    /// What its reactors have counted.
    pub pages: Vec<RawFd>,
    pub log: Option<RawFd>,
}

/// The master's end of a pair, and what was read from it and not understood yet.
#[derive(Serialize, Deserialize)]
pub struct Pair {
    pub fd: RawFd,
    pub input: Vec<u8>,
    pub listing: bool,
}

/// Descriptors that are to stay open, noted while the numbers are written down.
#[derive(Default)]
pub struct Keep(pub Vec<RawFd>);

impl Keep {
    pub fn note(&mut self, fd: &impl AsFd) -> RawFd {
        let fd = fd.as_fd().as_raw_fd();
        self.0.push(fd);
        fd
    }
}

/// What every version begins with.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

impl Inheritance {
    /// As a file without a name, to be read from its start.
    pub fn write(&self) -> io::Result<File> {
        let mut file = os::memory_file(&serde_json::to_vec(self)?)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    /// What another program, or an earlier version of this one, wrote.
    pub fn read(mut from: impl Read) -> Result<Inheritance, String> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)
            .map_err(|error| format!("what is handed over cannot be read: {error}"))?;
        let broken = |error| format!("what is handed over makes no sense: {error}");
        let head: Head = serde_json::from_slice(&bytes).map_err(broken)?;
        if head.version != VERSION {
            let found = head.version;
            return Err(format!(
                "this program takes over from version {VERSION} of the handover, the running one \
                 has version {found}; use `restart`"
            ));
        }
        serde_json::from_slice(&bytes).map_err(broken)
    }
}

/// Takes a descriptor that the program before left open.
///
/// # Safety
/// Nothing else in this process owns `fd`: it comes from an `Inheritance` that was handed to this
/// very process, and is taken once.
pub unsafe fn take(fd: RawFd) -> Result<OwnedFd, String> {
    // SAFETY: as the caller vouches for.
    unsafe { os::adopt(fd) }.map_err(|error| format!("descriptor {fd} that was left open: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_by_its_number_whatever_its_shape_is() {
        let read = |text: &str| Inheritance::read(text.as_bytes()).err().unwrap();
        let told = read("{\"version\":999,\"something\":\"new\"}");
        assert!(
            told.contains("version 999") && told.contains("restart"),
            "{told}"
        );
        let ours = format!("{{\"version\":{VERSION}}}");
        assert!(read(&ours).contains("makes no sense"));
        assert!(read("").contains("makes no sense"));
    }
}
