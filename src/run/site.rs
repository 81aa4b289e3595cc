//! What the master holds open for its children, and how a child gets its share of it. Does not
//! know when a child is due. Invariant: a replacement gets the very sockets its predecessor had.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::config::locate::Source;
use crate::config::{Config, handler_word};
use crate::run::certificates::{self, Certificates};
use crate::run::children::Role;
use crate::run::exit::Failure;
use crate::run::handover::{listener_name, master_name};
use crate::run::link::Link;
use crate::run::rundir::RunDir;
use crate::run::slots::Slots;
use crate::run::spawn::Launcher;
use crate::run::status::ListenStatus;

/// A living child as the master sees it.
pub struct Process {
    pub child: Child,
    /// One for each of its reactors.
    pub links: Vec<Link>,
}

/// Everything a child is given.
pub struct Site {
    slots: Vec<Slots>,
    links: UnixListener,
    switchboard: PathBuf,
    launcher: Launcher,
    /// Of the listeners that speak TLS, if any does.
    pub certificates: Option<Certificates>,
    workers: u32,
    threads: u32,
}

impl Site {
    /// Opens all sockets.
    pub fn open(config: &Config, source: &Source, dir: &RunDir) -> Result<Site, Failure> {
        let certificates = Certificates::open(config, source)?;
        let count = config.workers * config.threads;
        let slots: Result<Vec<Slots>, Failure> = config
            .listen
            .iter()
            .map(|listen| Slots::open(listen, count))
            .collect();
        let switchboard = dir.switchboard_socket();
        let links = listen_unix(&switchboard)
            .map_err(|error| Failure::io(switchboard.display(), &error))?;
        let launcher = Launcher::new(&source.text, source.path.clone())
            .map_err(|error| Failure::io("cannot start other processes", &error))?;
        Ok(Site {
            slots: slots?,
            links,
            switchboard,
            launcher,
            certificates,
            workers: config.workers,
            threads: config.threads,
        })
    }

    /// Where clients connect, with the real ports.
    pub fn listen_status(&self, config: &Config) -> Vec<ListenStatus> {
        let both = self.slots.iter().zip(&config.listen);
        both.map(|(slots, listen)| ListenStatus {
            url: slots.url.to_string(),
            handler: handler_word(listen.handler).to_string(),
            certificates: Vec::new(),
        })
        .collect()
    }

    /// Starts the process of one row of the table.
    pub fn start(&self, role: Role, number: u32) -> io::Result<Process> {
        match role {
            Role::Switchboard => self.start_switchboard(),
            Role::Worker => self.start_worker(number),
        }
    }

    fn start_switchboard(&self) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        let arguments = words(&[
            "switchboard",
            "--links",
            &(self.workers * self.threads).to_string(),
        ]);
        let descriptors = vec![
            ("master".to_string(), theirs.as_fd()),
            ("links".to_string(), self.links.as_fd()),
        ];
        let child = self.launcher.launch(&arguments, descriptors)?;
        Ok(Process {
            child,
            links: vec![link(ours)?],
        })
    }

    fn start_worker(&self, number: u32) -> io::Result<Process> {
        let slots = number * self.threads..(number + 1) * self.threads;
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for slot in slots.clone() {
            let (our_end, their_end) = UnixStream::pair()?;
            ours.push(link(our_end)?);
            theirs.push((master_name(slot), their_end));
        }
        let pairs = theirs
            .iter()
            .map(|(name, stream)| (name.clone(), stream.as_fd()));
        let mut descriptors: Vec<(String, BorrowedFd<'_>)> = pairs.collect();
        for slot in slots {
            for (index, of_table) in self.slots.iter().enumerate() {
                let socket = of_table.socket(slot).ok_or(io::ErrorKind::NotFound)?;
                descriptors.push((listener_name(index, slot), socket));
            }
        }
        if let Some(held) = &self.certificates {
            descriptors.push((certificates::DESCRIPTOR.to_string(), held.file()));
        }
        let switchboard = self.switchboard.display().to_string();
        let number = number.to_string();
        let arguments = words(&["worker", "--number", &number, "--switchboard", &switchboard]);
        let child = self.launcher.launch(&arguments, descriptors)?;
        Ok(Process { child, links: ours })
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn link(stream: UnixStream) -> io::Result<Link> {
    stream.set_nonblocking(true)?;
    Ok(Link::new(mio::net::UnixStream::from_std(stream)))
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    // Left by a server that was killed; the lock says that nobody uses it now.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
