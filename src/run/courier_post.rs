//! What the master holds for the courier: the socket at which the switchboard finds it, and the
//! directory of its database. Opens no database. Invariant: the directory is readable by whoever
//! the courier runs as, and by nobody else.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::run::exit::{Exit, Failure};
use crate::run::identity::Identity;
use crate::run::os;
use crate::run::rundir::RunDir;
use crate::run::site::{give_away, listen_unix};

pub struct CourierPost {
    pub links: UnixListener,
    pub socket: PathBuf,
    /// The socket as something to inherit, for children that may not look into our directory.
    pub inherited: Option<File>,
    /// The database; `None` when it is elsewhere.
    pub store: Option<PathBuf>,
}

impl CourierPost {
    pub fn open(config: &Config, dir: &RunDir) -> Result<CourierPost, Failure> {
        let socket = dir.courier_socket();
        let links = listen_unix(&socket).map_err(|error| Failure::io(socket.display(), &error))?;
        CourierPost::assemble(links, config, dir)
    }

    /// Goes on with the socket that the program before left open.
    pub fn resume(links: OwnedFd, config: &Config, dir: &RunDir) -> Result<CourierPost, Failure> {
        CourierPost::assemble(UnixListener::from(links), config, dir)
    }

    fn assemble(
        links: UnixListener,
        config: &Config,
        dir: &RunDir,
    ) -> Result<CourierPost, Failure> {
        let socket = dir.courier_socket();
        let identity = Identity::of(config)?;
        let inherited = identity.as_ref().map(|it| give_away(&socket, it));
        let inherited = inherited.transpose();
        let inherited = inherited.map_err(|error| Failure::io(socket.display(), &error))?;
        let store = match config.postgres {
            Some(_) => None,
            None => Some(own_store(config, dir, identity.as_ref())?),
        };
        Ok(CourierPost {
            links,
            socket,
            inherited,
            store,
        })
    }
}

/// The path of a database of our own, whose directory is there.
fn own_store(
    config: &Config,
    dir: &RunDir,
    identity: Option<&Identity>,
) -> Result<PathBuf, Failure> {
    let configured = config.store_dir.as_deref();
    let store = dir.store_dir(configured, config.run_dir.is_some());
    if identity.is_some() && store.starts_with(dir.path()) {
        let message = "the courier may not look into the run directory with user set; \
                           set store.dir to a directory for its database";
        return Err(Failure::new(Exit::BadConfig, message));
    }
    make_private(&store, identity)?;
    Ok(store.join("lineman.db"))
}

/// Makes the directory, or makes sure that the one there is its user's alone.
fn make_private(path: &Path, identity: Option<&Identity>) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::io(path.display(), &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(fail(error)),
        Err(_) => {}
        Ok(()) => {
            if let Some(it) = identity {
                chown(path, Some(it.uid), Some(it.gid)).map_err(fail)?;
            }
        }
    }
    let found = fs::symlink_metadata(path).map_err(fail)?;
    let owner = identity.map_or(os::effective_uid(), |it| it.uid);
    if !found.is_dir() || found.uid() != owner {
        let message = format!(
            "{}: the database needs a directory of its own user",
            path.display()
        );
        return Err(Failure::new(Exit::NotPermitted, message));
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(fail)
}
