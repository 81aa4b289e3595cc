//! The file that the log goes to: it stands in the place of standard error, in the master and in
//! all children, and is opened again after it was rotated. Does not know what is written. The
//! master opens it and sends it to the children, which may not have the right to. Invariant: a line
//! is written whole to the file that was current when its writing began.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use crate::run::exit::Failure;
use crate::run::{os, pass_fd};

/// The name of the socket on which a child gets the file, among its descriptors.
pub const DESCRIPTOR: &str = "log";

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// What standard error is a copy of.
    file: File,
}

impl LogFile {
    /// Puts the file in the place of standard error, for us and for all children to come, whatever
    /// writes there: even the last words of a library end up in the log.
    pub fn open(path: PathBuf) -> Result<LogFile, Failure> {
        let file = put(&path).map_err(|error| {
            Failure::io(format!("cannot write the log {}", path.display()), &error)
        })?;
        Ok(LogFile { path, file })
    }

    /// Does so again if another file has the name now, or none. Returns whether it was so.
    pub fn reopen(&mut self) -> io::Result<bool> {
        let held = self.file.metadata()?;
        let same = |it: std::fs::Metadata| (it.dev(), it.ino()) == (held.dev(), held.ino());
        if std::fs::metadata(&self.path).is_ok_and(same) {
            return Ok(false);
        }
        self.file = put(&self.path)?;
        Ok(true)
    }

    /// For children.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn put(path: &PathBuf) -> io::Result<File> {
    let mut options = File::options();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    os::place_at(file.as_raw_fd(), 2)?;
    Ok(file)
}

/// A child's side: takes over every file that the master sends. In a thread of its own, so that a
/// child without anything to log does not hold on to a file that was removed.
pub fn follow(socket: OwnedFd) {
    let socket = UnixStream::from(socket);
    let follow = move || {
        // An end of any kind means that the master is gone, and so will we be.
        while let Ok(Some(file)) = pass_fd::receive(&socket) {
            if let Err(error) = os::place_at(file.as_raw_fd(), 2) {
                log::error!("the log goes on in the file it had: {error}");
            }
        }
    };
    let spawned = thread::Builder::new().name("log-file".into()).spawn(follow);
    if let Err(error) = spawned {
        log::warn!("the log cannot be rotated: {error}");
    }
}
