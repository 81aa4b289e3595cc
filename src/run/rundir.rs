//! The directory of one running server: its lock and its sockets. Owns where it lies, who may see
//! it and that one server uses it at a time. Does not know what goes through the sockets.
//! Invariant: nothing in it is readable, let alone writable, by another user.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use crate::config::locate::Source;
use crate::run::exit::{Exit, Failure};
use crate::run::os;

/// Where everything about one server lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    base: PathBuf,
    path: PathBuf,
}

impl RunDir {
    /// The directory that belongs to a configuration file; creates nothing.
    pub fn of(source: &Source) -> RunDir {
        let base = source.run_dir().unwrap_or_else(|| {
            if let Some(base) = managed_base(std::env::var_os("RUNTIME_DIRECTORY").as_deref()) {
                return base;
            }
            let runtime = std::env::var_os("XDG_RUNTIME_DIR");
            default_base(
                os::effective_uid(),
                os::is_writable(Path::new("/run")),
                runtime.as_deref(),
            )
        });
        let path = base.join(instance_name(source));
        RunDir { base, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    pub fn switchboard_socket(&self) -> PathBuf {
        self.path.join("switchboard.sock")
    }

    pub fn courier_socket(&self) -> PathBuf {
        self.path.join("courier.sock")
    }

    /// Where the database lies: `configured`, else what a service manager made for us, else where
    /// root keeps such things, else here.
    pub fn store_dir(&self, configured: Option<&Path>, own_run_dir: bool) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        let managed = managed_base(std::env::var_os("STATE_DIRECTORY").as_deref());
        match (configured, managed) {
            (Some(dir), _) => dir.to_path_buf(),
            (None, Some(base)) => base.join(name),
            _ if os::effective_uid() == 0 && !own_run_dir => {
                Path::new("/var/lib/lineman").join(name)
            }
            _ => self.path.join("store"),
        }
    }

    pub fn log_file(&self) -> PathBuf {
        self.path.join("lineman.log")
    }

    /// Makes the directory, or makes sure that the one there is ours alone.
    pub fn create(&self) -> Result<(), Failure> {
        let longest = self.switchboard_socket();
        let bytes = longest.as_os_str().len();
        if bytes > os::SOCKET_PATH_BYTES_MAX {
            let message = format!(
                "{}: {bytes} bytes are too long for the path of a Unix socket, which holds {}; \
                 set run_dir to a shorter path",
                longest.display(),
                os::SOCKET_PATH_BYTES_MAX
            );
            return Err(Failure::new(Exit::BadConfig, message));
        }
        make_dir(&self.base, true)?;
        check_owner(&self.base)?;
        make_dir(&self.path, false)?;
        check_owner(&self.path)?;
        fs::set_permissions(&self.path, Permissions::from_mode(0o700))
            .map_err(|error| Failure::io(self.path.display(), &error))
    }

    /// Removes what a stopped server leaves; a log file stays, and the directory with it.
    pub fn clean(&self) {
        let ours = [
            self.control_socket(),
            self.switchboard_socket(),
            self.courier_socket(),
        ];
        for socket in ours {
            let _ = fs::remove_file(socket);
        }
    }
}

/// What a service manager made for us: the first of its directories. With RuntimeDirectory=lineman
/// it is where root looks as well.
fn managed_base(directories: Option<&OsStr>) -> Option<PathBuf> {
    let first = directories?.as_bytes().split(|byte| *byte == b':').next()?;
    let path = PathBuf::from(OsStr::from_bytes(first));
    path.is_absolute().then_some(path)
}

fn default_base(uid: u32, run_is_writable: bool, runtime: Option<&OsStr>) -> PathBuf {
    if uid == 0 && run_is_writable {
        return PathBuf::from("/run/lineman");
    }
    match runtime {
        Some(dir) if Path::new(dir).is_absolute() => Path::new(dir).join("lineman"),
        _ => PathBuf::from(format!("/tmp/lineman-{uid}")),
    }
}

/// `<file stem>-<8 hex digits>`: readable, and different for files of one name in two places.
fn instance_name(source: &Source) -> String {
    let Some(path) = source.path.as_deref().or(source.program.file.as_deref()) else {
        return "built-in".to_string();
    };
    let hash = digest::digest(&digest::SHA256, path.as_os_str().as_bytes());
    let hash: String = hash.as_ref()[..4]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let stem = path
        .file_stem()
        .map_or_else(Default::default, OsStr::to_string_lossy);
    let stem: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '_'
            }
        })
        .take(24)
        .collect();
    format!("{stem}-{hash}")
}

fn make_dir(path: &Path, recursive: bool) -> Result<(), Failure> {
    match DirBuilder::new()
        .mode(0o700)
        .recursive(recursive)
        .create(path)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Failure::io(
            format!("cannot create {}", path.display()),
            &error,
        )),
        _ => Ok(()),
    }
}

/// A directory of another user, or one that others may write into, could be exchanged under us.
fn check_owner(path: &Path) -> Result<(), Failure> {
    let found = fs::symlink_metadata(path).map_err(|error| Failure::io(path.display(), &error))?;
    let ours = [os::effective_uid(), 0].contains(&found.uid());
    let problem = if !found.is_dir() {
        "is not a directory"
    } else if !ours {
        "belongs to another user"
    } else if found.mode() & 0o022 != 0 {
        "can be written by other users"
    } else {
        return Ok(());
    };
    let message = format!("{} {problem}; remove it or set run_dir", path.display());
    Err(Failure::new(Exit::NotPermitted, message))
}

/// Held by the master for life. The kernel lets go of it however the master ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Makes this process the one that owns the directory; creates the directory.
    pub fn take(dir: &RunDir) -> Result<Lock, Failure> {
        // A server that stops removes the lock and the directory; whoever comes in between tries
        // again. More rounds than one mean two of us in a hurry, more than a few cannot be.
        for _ in 0..10 {
            dir.create()?;
            match Lock::attempt(dir.path()) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(already_running(dir));
                }
                Err(error) => return Err(Failure::io(dir.path().display(), &error)),
            }
        }
        Err(Failure::new(Exit::Failed, "the lock does not hold still"))
    }

    /// `None` when the file locked is not the one in the directory any more.
    fn attempt(dir: &Path) -> io::Result<Option<Lock>> {
        let path = dir.join("lock");
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .mode(0o600)
            .truncate(false);
        let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (held, found) = (file.metadata()?, fs::symlink_metadata(&path)?);
        if held.ino() != found.ino() || held.dev() != found.dev() {
            return Ok(None);
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(Lock { file, path }))
    }

    /// The lock on `dir` that this process holds already.
    pub fn adopt(fd: OwnedFd, dir: &RunDir) -> Lock {
        Lock {
            file: File::from(fd),
            path: dir.path().join("lock"),
        }
    }

    /// Lets go in the order in which the next one asks: the name first, then the lock itself.
    pub fn release(self) {
        let _ = fs::remove_file(&self.path);
        if let Some(dir) = self.path.parent() {
            // Succeeds when nothing is left in it.
            let _ = fs::remove_dir(dir);
        }
        drop(self.file);
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn already_running(dir: &RunDir) -> Failure {
    let pid = fs::read_to_string(dir.path().join("lock")).unwrap_or_default();
    let pid = match pid.trim() {
        "" => String::new(),
        pid => format!(" (pid {pid})"),
    };
    let message = format!("already running{pid}; `lineman status` tells more");
    Failure::new(Exit::AlreadyRunning, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_temp(name: &str) -> (PathBuf, RunDir) {
        let base = std::env::temp_dir().join(format!("lineman-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        let source = Source {
            path: Some(PathBuf::from("/etc/lineman/chat.toml")),
            text: format!("run_dir = {:?}", base.display().to_string()),
            program: Default::default(),
        };
        (base, RunDir::of(&source))
    }

    #[test]
    fn the_default_place_depends_on_who_asks() {
        let check = |uid, writable, runtime: Option<&str>, expected: &str| {
            let base = default_base(uid, writable, runtime.map(OsStr::new));
            assert_eq!(base, Path::new(expected));
        };
        check(0, true, Some("/run/user/0"), "/run/lineman");
        check(0, false, None, "/tmp/lineman-0");
        check(7, true, Some("/run/user/7"), "/run/user/7/lineman");
        check(7, true, Some("relative"), "/tmp/lineman-7");
        let managed = |text: &str| managed_base(Some(OsStr::new(text)));
        assert_eq!(managed("/run/lineman:/run/x"), Some("/run/lineman".into()));
        assert_eq!(managed("x"), None);
    }

    fn of(path: &str) -> Source {
        Source {
            path: Some(PathBuf::from(path)),
            text: String::new(),
            program: Default::default(),
        }
    }

    #[test]
    fn an_instance_is_named_after_its_file_and_its_place() {
        let here = instance_name(&of("/a/chat.toml"));
        let there = instance_name(&of("/b/chat.toml"));
        assert!(here.starts_with("chat-") && here.len() == 13, "{here}");
        assert_ne!(here, there);
        assert_eq!(instance_name(&of("/a/ü b.toml")).len(), 12);
    }

    #[test]
    fn one_lock_at_a_time_and_nothing_left_afterwards() {
        let (base, dir) = in_temp("lock");
        let lock = Lock::take(&dir).unwrap();
        let mode = fs::metadata(dir.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        let second = Lock::take(&dir).unwrap_err();
        assert_eq!(second.exit, Exit::AlreadyRunning);
        assert!(second.message.contains(&std::process::id().to_string()));
        lock.release();
        assert!(!dir.path().exists());
        Lock::take(&dir).unwrap().release();
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_symlink_or_an_open_directory_is_refused() {
        let (base, dir) = in_temp("symlink");
        DirBuilder::new().mode(0o700).create(&base).unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path()).unwrap();
        assert_eq!(dir.create().unwrap_err().exit, Exit::NotPermitted);
        fs::set_permissions(&base, Permissions::from_mode(0o777)).unwrap();
        assert!(
            dir.create()
                .unwrap_err()
                .message
                .contains("written by other users")
        );
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_explained() {
        let source = Source {
            path: None,
            text: format!("run_dir = \"/tmp/{}\"", "x".repeat(100)),
            program: Default::default(),
        };
        let failure = RunDir::of(&source).create().unwrap_err();
        assert_eq!(failure.exit, Exit::BadConfig);
        assert!(failure.message.contains("run_dir"), "{}", failure.message);
    }
}
