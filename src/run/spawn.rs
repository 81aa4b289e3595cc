//! Starting a child: fork, hand the descriptors over, exec our own binary. Does not know when a
//! child is due or what its descriptors are for. Invariant: a child gets the descriptors named and
//! no others, runs the very binary the master runs, and dies with the master.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::config::locate::Source;
use crate::run::children::Role;
use crate::run::handed_config::Packed;
use crate::run::handover;
use crate::run::identity::{self, Identity};
use crate::run::notify;
use crate::run::os;
use crate::run::signals::IGNORED_BY_CHILDREN;

/// What is the same for all children.
#[derive(Debug)]
pub struct Launcher {
    binary: Binary,
    /// What `handed_config` packed, so that a file changed meanwhile does not mix versions.
    config: Packed,
    /// Set when the program that embeds us is to be started again: how it was started.
    embedding: Option<Embedding>,
    master: u32,
    /// Whose rights the children get; `None`: ours.
    identity: Option<Identity>,
}

/// The variables that children inherit, by how they begin: those that say how any program is run,
/// and whose certificates are trusted. The environment may hold secrets, and children are told all else.
const INHERITED: &[&str] = &[
    "LD_",
    "LLVM_PROFILE_FILE",
    "MIMALLOC_",
    "RUST_BACKTRACE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

/// No huge pages for the allocator of our children, unless the environment says otherwise: it asks
/// for them where the system allows that, and then a process that holds nothing has 13 MB instead of
/// 2, and one with 17,000 connections a quarter more. They made nothing faster.
const SMALL_PAGES: (&str, &str) = ("MIMALLOC_ALLOW_THP", "0");

/// The variable that tells a program that embeds the server which role it has, because its own
/// command line belongs to it: the arguments that `lineman` would get, joined by `SEPARATOR`.
pub const ROLE: &str = "LINEMAN_ROLE";
/// No path or word of ours has one.
pub const SEPARATOR: char = '\u{1f}';

/// The command line of the role that the master gave this process, if it did so by `ROLE`.
pub fn role() -> Option<Vec<OsString>> {
    let role = std::env::var(ROLE).ok().filter(|_| handover::is_child())?;
    let words = std::iter::once("lineman").chain(role.split(SEPARATOR));
    Some(words.map(OsString::from).collect())
}

#[derive(Debug)]
struct Embedding {
    name: String,
    arguments: Vec<OsString>,
}

#[derive(Debug)]
enum Binary {
    /// Open, so that a new version on disk does not change what a replacement runs.
    Open(File),
    /// For systems without /proc.
    Path(PathBuf),
}

impl Launcher {
    pub fn new(
        source: &Source,
        config: Packed,
        identity: Option<Identity>,
    ) -> io::Result<Launcher> {
        let embedding = source.program.name.clone().map(|name| Embedding {
            name,
            arguments: std::env::args_os().skip(1).collect(),
        });
        let binary = match File::open("/proc/self/exe") {
            Ok(file) => Binary::Open(file),
            Err(_) => Binary::Path(std::env::current_exe()?),
        };
        Ok(Launcher {
            binary,
            config,
            embedding,
            master: std::process::id(),
            identity,
        })
    }

    /// Gives the next children another configuration; returns the former.
    pub fn configure(&mut self, config: Packed) -> Packed {
        std::mem::replace(&mut self.config, config)
    }

    /// Starts `lineman ARGUMENTS`, or the embedding program in that role, with `descriptors`, the
    /// configuration added. To be called from the master's main thread: Linux ties a child's life to the thread that forked it.
    pub fn launch(
        &self,
        role: Role,
        arguments: &[String],
        descriptors: Vec<(String, BorrowedFd<'_>)>,
    ) -> io::Result<Child> {
        let mut descriptors = descriptors;
        let own = self.config.file_with_keys.as_ref();
        let config = own.filter(|_| role == Role::Courier);
        let config = config.unwrap_or(&self.config.file);
        descriptors.push(("config".to_string(), config.as_fd()));
        // Numbers that the child's descriptors will take must not be in use for anything that the
        // child still needs on its way to exec: the sources, the binary, and the pipe on which the
        // standard library reports that exec failed. The first two are copied out of the way; the
        // pipe cannot land there because the numbers are occupied while it is made.
        let free = handover::FIRST + descriptors.len() as RawFd;
        let _occupied = occupy_below(free)?;
        let mut names = Vec::new();
        let mut sources = Vec::new();
        for (name, fd) in descriptors {
            names.push(name);
            sources.push(os::duplicate_above(fd, free)?);
        }
        let (program, _open) = self.program(free)?;
        let mut command = Command::new(program);
        match &self.embedding {
            None => command
                .arg0("lineman")
                .args(arguments)
                .env_clear()
                .envs([SMALL_PAGES])
                .envs(std::env::vars_os().filter(|(name, _)| is_inherited(name))),
            Some(embedding) => {
                // The environment is the program's own to use, but for what is meant for us.
                let ours = self.config.variables.iter().map(String::as_str);
                for name in ours.chain(notify::VARIABLES).chain(["LISTEN_PID"]) {
                    command.env_remove(name);
                }
                command
                    .arg0(&embedding.name)
                    .args(&embedding.arguments)
                    .env(ROLE, arguments.join(&SEPARATOR.to_string()))
            }
        };
        command
            .envs(handover::environment(&names, self.master))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        self.prepare(&mut command, &sources);
        command.spawn()
    }

    fn program(&self, free: RawFd) -> io::Result<(PathBuf, Option<OwnedFd>)> {
        match &self.binary {
            Binary::Open(file) => {
                let copy = os::duplicate_above(file.as_fd(), free)?;
                let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
                Ok((PathBuf::from(path), Some(copy)))
            }
            Binary::Path(path) => Ok((path.clone(), None)),
        }
    }

    /// What the child does between fork and exec.
    fn prepare(&self, command: &mut Command, sources: &[OwnedFd]) {
        let sources: Vec<RawFd> = sources.iter().map(AsRawFd::as_raw_fd).collect();
        let master = self.master;
        let free = handover::FIRST + sources.len() as RawFd;
        let identity = self.identity.clone();
        let between = move || {
            os::ignore_signals(IGNORED_BY_CHILDREN);
            for (&source, target) in sources.iter().zip(handover::FIRST..) {
                os::place_at(source, target)?;
            }
            // Whoever started the master may have left descriptors open that are not ours.
            os::close_on_exec_from(free);
            if let Some(identity) = &identity {
                identity.put_on()?;
            }
            identity::renounce_new_rights()?;
            // Last: the kernel forgets this wish when rights change.
            os::die_with_parent(master)
        };
        // SAFETY: the closure makes system calls that are async-signal-safe and nothing else: it
        // allocates nothing and takes no lock, so it does not matter what other threads of the
        // master were doing at the fork.
        unsafe { command.pre_exec(between) };
    }
}

fn is_inherited(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    INHERITED.iter().any(|it| name.starts_with(it.as_bytes()))
}

/// Opens descriptors until none below `free` is left.
fn occupy_below(free: RawFd) -> io::Result<Vec<OwnedFd>> {
    let null = File::open("/dev/null")?;
    let mut occupied: Vec<OwnedFd> = Vec::new();
    let mut highest = null.as_raw_fd();
    occupied.push(null.into());
    while highest < free {
        let next = os::duplicate_above(occupied[0].as_fd(), 0)?;
        highest = next.as_raw_fd();
        occupied.push(next);
    }
    Ok(occupied)
}
