//! What the master holds open for its children, and how a child gets its share of it. Does not
//! know when a child is due. Invariant: a replacement gets the very sockets its predecessor had.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::base::dice::Dice;
use crate::config::Config;
use crate::config::locate::Source;
use crate::config::url::Place;
use crate::net::tickets::TicketSecret;
use crate::realtime::registry::LinkId;
use crate::run::certificates::{self, Certificates};
use crate::run::child_process::ChildProcess;
use crate::run::children::{Children, Role};
use crate::run::courier_post::CourierPost;
use crate::run::exit::{Exit, Failure};
use crate::run::handed_config::{self, Packed};
use crate::run::handover::{Activated, COURIER_NAME, SWITCHBOARD_NAME, listener_name, master_name};
use crate::run::identity::Identity;
use crate::run::inheritance::{Heir, Inheritance, Keep, Listeners};
use crate::run::ledger::{self, Ledger, Page, page_name};
use crate::run::link::Link;
use crate::run::log_file;
use crate::run::role::seed;
use crate::run::roots;
use crate::run::rundir::RunDir;
use crate::run::slots::Slots;
use crate::run::spawn::Launcher;
use crate::run::status::ListenStatus;

/// A living child as the master sees it.
pub struct Process {
    pub child: ChildProcess,
    /// One for each of its reactors.
    pub links: Vec<Link>,
    /// Where it is sent a new log file, if the log goes to one.
    pub log: Option<UnixStream>,
    /// The same; none for the switchboard. They end with the process.
    pub pages: Vec<Page>,
}

impl Process {
    /// Goes on with a child of the program before. `fd` takes each descriptor.
    pub fn resume(
        heir: Heir,
        ledger: &Ledger,
        fd: &mut dyn FnMut(RawFd) -> Result<OwnedFd, String>,
    ) -> Result<Process, String> {
        let mut links = Vec::new();
        for pair in heir.links {
            let stream = mio::net::UnixStream::from_std(UnixStream::from(fd(pair.fd)?));
            links.push(Link::restore(stream, pair));
        }
        let pages = heir
            .pages
            .into_iter()
            .map(|page| Ok(ledger.adopt_page(fd(page)?)));
        let pages: Result<Vec<Page>, String> = pages.collect();
        Ok(Process {
            child: ChildProcess::of(heir.pid),
            links,
            pages: pages?,
            log: heir.log.map(fd).transpose()?.map(UnixStream::from),
        })
    }
}

/// What is opened anew, or was open before.
type Held = (
    Vec<Slots>,
    UnixListener,
    Ledger,
    Option<Certificates>,
    Option<CourierPost>,
);

/// What a child is given of the configuration.
pub struct Given {
    config: Packed,
    certificates: Option<Certificates>,
}

/// Everything a child is given.
pub struct Site {
    slots: Vec<Slots>,
    links: UnixListener,
    switchboard: PathBuf,
    /// The same as something to inherit, for children that may not look into our directory.
    inherited: Option<File>,
    /// Of the courier, if there is one.
    courier: Option<CourierPost>,
    launcher: Launcher,
    pub ledger: Ledger,
    /// Of the listeners that speak TLS, if any does.
    pub certificates: Option<Certificates>,
    /// Whether the log goes to a file, which may be rotated.
    pub log_is_file: bool,
    workers: u32,
    threads: u32,
}

impl Site {
    /// Opens all sockets.
    pub fn open(
        config: &Config,
        source: &Source,
        dir: &RunDir,
        activated: &mut Activated,
    ) -> Result<Site, Failure> {
        if let Some(identity) = Identity::of(config)? {
            identity.try_on()?;
        }
        roots::check(config)?;
        let certificates = Certificates::open(config, source)?;
        let slots: Result<Vec<Slots>, Failure> = config
            .listen
            .iter()
            .map(|listen| {
                let count = config.slots(listen);
                let Place::Inet(address) = listen.url.place else {
                    return Slots::open(listen, count);
                };
                match activated.take(address) {
                    Some(listener) => Slots::activated(listen, listener, count),
                    None => Slots::open(listen, count),
                }
            })
            .collect();
        let slots = slots?;
        let switchboard = dir.switchboard_socket();
        let links = listen_unix(&switchboard)
            .map_err(|error| Failure::io(switchboard.display(), &error))?;
        let courier = match config.has_courier() {
            true => Some(CourierPost::open(config, dir)?),
            false => None,
        };
        let key = Dice::new(seed().map_err(|why| Failure::new(Exit::Failed, why))?).next_u64();
        let ledger = Ledger::open(config.listen.len(), key)
            .map_err(|error| Failure::io("cannot share memory", &error))?;
        Site::assemble(
            config,
            source,
            switchboard,
            (slots, links, ledger, certificates, courier),
        )
    }

    /// Goes on with what the program before left open. `fd` takes each descriptor.
    pub fn resume(
        config: &Config,
        source: &Source,
        dir: &RunDir,
        left: &Inheritance,
        fd: &mut dyn FnMut(RawFd) -> Result<OwnedFd, String>,
    ) -> Result<Site, Failure> {
        let fail = |why: String| Failure::new(Exit::Failed, why);
        let tickets = left.tickets;
        let tickets = tickets.map(|(epoch, bytes)| TicketSecret { epoch, bytes });
        let certificates = Certificates::open_again(tickets, config, source)?;
        let mut slots = Vec::new();
        for (listen, left) in config.listen.iter().zip(&left.listeners) {
            slots.push(Slots::resume(listen, left, config.slots(listen), fd).map_err(fail)?);
        }
        let links = UnixListener::from(fd(left.links).map_err(fail)?);
        let courier = match left.courier {
            Some(courier) => Some(CourierPost::resume(
                fd(courier).map_err(fail)?,
                config,
                dir,
            )?),
            None => None,
        };
        let switchboard = dir.switchboard_socket();
        let ledger = Ledger::adopt(fd(left.ledger).map_err(fail)?, config.listen.len())
            .map_err(|error| Failure::io("cannot share memory", &error))?;
        Site::assemble(
            config,
            source,
            switchboard,
            (slots, links, ledger, certificates, courier),
        )
    }

    /// The file of the courier's database, if it is one of this server's own.
    pub fn store(&self) -> Option<&Path> {
        self.courier.as_ref()?.store.as_deref()
    }

    fn assemble(
        config: &Config,
        source: &Source,
        switchboard: PathBuf,
        (slots, links, ledger, certificates, courier): Held,
    ) -> Result<Site, Failure> {
        let identity = Identity::of(config)?;
        let inherited = identity.as_ref().map(|it| give_away(&switchboard, it));
        let inherited = inherited.transpose();
        let inherited = inherited.map_err(|error| Failure::io(switchboard.display(), &error))?;
        let launcher = handed_config::pack(source, config)
            .and_then(|config| Launcher::new(source, config, identity))
            .map_err(|error| Failure::io("cannot start other processes", &error))?;
        Ok(Site {
            slots,
            links,
            switchboard,
            inherited,
            courier,
            launcher,
            ledger,
            certificates,
            log_is_file: false,
            workers: config.workers,
            threads: config.threads,
        })
    }

    /// The sockets, for the program that takes over; `None` when they are closed.
    pub fn leave(&self, keep: &mut Keep) -> Option<(Vec<Listeners>, RawFd, Option<RawFd>)> {
        let slots: Option<Vec<Listeners>> = self.slots.iter().map(|it| it.leave(keep)).collect();
        let courier = self.courier.as_ref().map(|it| keep.note(&it.links));
        Some((slots?, keep.note(&self.links), courier))
    }

    /// Where clients connect, with the real ports.
    pub fn listen_status(&self, config: &Config) -> Vec<ListenStatus> {
        let both = self.slots.iter().zip(&config.listen);
        both.map(|(slots, listen)| ListenStatus {
            url: slots.url.to_string(),
            handler: listen.word.clone(),
            workers: listen.workers,
            certificates: Vec::new(),
        })
        .collect()
    }

    /// Starts the process of one row of the table.
    pub fn start(&mut self, children: &Children, index: usize) -> io::Result<Process> {
        let row = &children.rows()[index];
        match row.role {
            Role::Switchboard => self.start_switchboard(children),
            Role::Courier => self.start_courier(),
            Role::Worker => {
                self.wake(row.number)?;
                self.start_worker(row.number, row.life)
            }
        }
    }

    /// Gives children this configuration from now on; returns the one they had.
    pub fn configure(&mut self, config: &Config, source: &Source) -> Result<Given, Failure> {
        roots::check(config)?;
        let certificates = {
            let tickets = self.certificates.as_ref().map(Certificates::tickets);
            Certificates::open_again(tickets, config, source)?
        };
        let handed = handed_config::pack(source, config)
            .map_err(|error| Failure::io("cannot hold the configuration", &error))?;
        Ok(self.give(Given {
            config: handed,
            certificates,
        }))
    }

    /// Gives children this from now on; returns what they had.
    pub fn give(&mut self, given: Given) -> Given {
        Given {
            config: self.launcher.configure(given.config),
            certificates: std::mem::replace(&mut self.certificates, given.certificates),
        }
    }

    /// Closes all listeners.
    pub fn unlisten(&mut self) {
        self.slots.iter_mut().for_each(Slots::close_all);
    }

    /// Closes the listeners of a worker, so that the kernel gives its share to the others.
    pub fn rest(&mut self, number: u32) {
        for slot in self.slots_of(number) {
            self.slots.iter_mut().for_each(|it| it.close(slot));
        }
    }

    /// Opens what `rest` closed.
    fn wake(&mut self, number: u32) -> io::Result<()> {
        for slot in self.slots_of(number) {
            for of_table in &mut self.slots {
                of_table.reopen(slot)?;
            }
        }
        Ok(())
    }

    pub fn slots_of(&self, number: u32) -> Range<u32> {
        number * self.threads..(number + 1) * self.threads
    }

    fn start_switchboard(&self, children: &Children) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        let links = (self.workers * self.threads).to_string();
        let mut arguments = words(&["switchboard", "--links", &links]);
        let living = self.living(children);
        if !living.is_empty() {
            arguments.extend(words(&["--living", &living.join(",")]));
        }
        let mut descriptors = vec![
            ("master".to_string(), theirs.as_fd()),
            ("links".to_string(), self.links.as_fd()),
        ];
        if let Some(courier) = &self.courier {
            arguments.extend(words(&["--courier", &courier.socket.display().to_string()]));
            let inherited = courier.inherited.iter();
            descriptors.extend(inherited.map(|it| (COURIER_NAME.to_string(), it.as_fd())));
        }
        self.launch(
            Role::Switchboard,
            &arguments,
            descriptors,
            vec![link(ours)?],
        )
    }

    fn start_courier(&self) -> io::Result<Process> {
        let courier = self.courier.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (ours, theirs) = UnixStream::pair()?;
        let descriptors = vec![
            ("master".to_string(), theirs.as_fd()),
            ("links".to_string(), courier.links.as_fd()),
        ];
        let mut arguments = words(&["courier"]);
        if let Some(store) = &courier.store {
            arguments.extend(words(&["--store", &store.display().to_string()]));
        }
        self.launch(Role::Courier, &arguments, descriptors, vec![link(ours)?])
    }

    /// The links of the workers that live, those that leave among them.
    fn living(&self, children: &Children) -> Vec<String> {
        let workers = children.living_workers();
        let links = workers.flat_map(|row| {
            let slots = self.slots_of(row.number);
            slots.map(|slot| LinkId::new(slot, row.life).to_string())
        });
        links.collect()
    }

    fn start_worker(&self, number: u32, life: u32) -> io::Result<Process> {
        let slots = self.slots_of(number);
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        let mut pages = Vec::new();
        for slot in slots.clone() {
            let (our_end, their_end) = UnixStream::pair()?;
            ours.push(link(our_end)?);
            theirs.push((master_name(slot), their_end));
            pages.push((page_name(slot), self.ledger.page()?));
        }
        let pairs = theirs
            .iter()
            .map(|(name, stream)| (name.clone(), stream.as_fd()));
        let mut descriptors: Vec<(String, BorrowedFd<'_>)> = pairs.collect();
        for slot in slots {
            let tables = self.slots.iter().enumerate();
            for (index, of_table) in tables.filter(|(_, it)| it.serves(slot)) {
                let socket = of_table.socket(slot).ok_or(io::ErrorKind::NotFound)?;
                descriptors.push((listener_name(index, slot), socket));
            }
        }
        descriptors.push((ledger::DESCRIPTOR.to_string(), self.ledger.file()));
        descriptors.extend(pages.iter().map(|(name, page)| (name.clone(), page.file())));
        if let Some(file) = &self.inherited {
            descriptors.push((SWITCHBOARD_NAME.to_string(), file.as_fd()));
        }
        if let Some(held) = &self.certificates {
            descriptors.push((certificates::DESCRIPTOR.to_string(), held.file()));
        }
        let switchboard = self.switchboard.display().to_string();
        let (number, life) = (number.to_string(), life.to_string());
        let mut arguments = words(&["worker", "--number", &number, "--life", &life]);
        arguments.extend(words(&["--switchboard", &switchboard]));
        let process = self.launch(Role::Worker, &arguments, descriptors, ours)?;
        Ok(Process {
            pages: pages.into_iter().map(|(_, page)| page).collect(),
            ..process
        })
    }

    fn launch(
        &self,
        role: Role,
        arguments: &[String],
        descriptors: Vec<(String, BorrowedFd<'_>)>,
        links: Vec<Link>,
    ) -> io::Result<Process> {
        let mut descriptors = descriptors;
        let pair = self.log_is_file.then(UnixStream::pair).transpose()?;
        let (log, theirs) = pair.unzip();
        if let Some(theirs) = &theirs {
            descriptors.push((log_file::DESCRIPTOR.to_string(), theirs.as_fd()));
        }
        if let Some(ours) = &log {
            ours.set_nonblocking(true)?;
        }
        let child = self.launcher.launch(role, arguments, descriptors)?.into();
        Ok(Process {
            child,
            links,
            pages: Vec::new(),
            log,
        })
    }
}

/// Lets the children connect although they may not enter our directory: the socket is theirs, and
/// they reach it through a descriptor that stands for its name.
pub(super) fn give_away(path: &Path, to: &Identity) -> io::Result<File> {
    std::os::unix::fs::chown(path, Some(to.uid), Some(to.gid))?;
    let mut options = File::options();
    #[cfg(target_os = "linux")]
    options.custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
    options.read(true).open(path)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn link(stream: UnixStream) -> io::Result<Link> {
    stream.set_nonblocking(true)?;
    Ok(Link::new(mio::net::UnixStream::from_std(stream)))
}

pub(super) fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    // Left by a server that was killed; the lock says that nobody uses it now.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
