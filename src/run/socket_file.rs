//! A listening Unix socket and its file. Owns what may be done about a file that is there already:
//! a dead server's socket is replaced, anything else is left alone. Does not know what is spoken
//! on it. Invariant: at its end the file is removed if it is still the one that was made.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::run::exit::{Exit, Failure};
use crate::run::os;

/// For the owner and the group: a proxy that is to reach the server is put into its group.
const MODE: u32 = 0o660;

#[derive(Debug)]
pub struct SocketFile {
    socket: Socket,
    path: PathBuf,
    /// Device and inode of the file.
    identity: (u64, u64),
}

impl SocketFile {
    pub fn listen(path: &Path, backlog: i32) -> Result<SocketFile, Failure> {
        let bytes = path.as_os_str().len();
        if bytes > os::SOCKET_PATH_BYTES_MAX {
            let message = format!(
                "cannot listen on unix://{}: {bytes} bytes are too long for the path of a Unix \
                 socket, which holds {}",
                path.display(),
                os::SOCKET_PATH_BYTES_MAX
            );
            return Err(Failure::new(Exit::BadConfig, message));
        }
        clear(path)?;
        open(path, backlog).map_err(|error| {
            Failure::io(
                format!("cannot listen on unix://{}", path.display()),
                &error,
            )
        })
    }

    /// A socket that this process has open already.
    pub fn adopt(fd: OwnedFd, path: &Path, identity: (u64, u64)) -> SocketFile {
        SocketFile {
            socket: Socket::from(fd),
            path: path.to_path_buf(),
            identity,
        }
    }

    /// Device and inode of the file.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|it| identity(&it) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path, backlog: i32) -> io::Result<SocketFile> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    let identity = identity(&fs::symlink_metadata(path)?);
    let file = SocketFile {
        socket,
        path: path.to_path_buf(),
        identity,
    };
    // Before it listens, nobody can connect whatever the mode is.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    file.socket.listen(backlog)?;
    Ok(file)
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Makes room for the socket, or says who is in the way.
fn clear(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let refuse = |why: &str| {
        let message = format!("cannot listen on unix://{shown}: {why}");
        Err(Failure::new(Exit::Failed, message))
    };
    match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if !found.file_type().is_socket() => {
            return refuse("a file that is no socket is there; move it, or change url");
        }
        Ok(_) => {}
    }
    match knock(path) {
        // Nobody holds it open any more.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| Failure::io(format!("cannot remove the old socket {shown}"), &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::io(
            format!("cannot listen on unix://{shown}: another user's socket is there"),
            &error,
        )),
        // A queue that is full is a server that lives.
        Ok(()) | Err(_) => {
            refuse("another program listens there; stop it, or change url in the configuration")
        }
    }
}

fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path, part: &str) {
        let failure = SocketFile::listen(path, 1).expect_err("refused");
        assert!(failure.message.contains(part), "{}", failure.message);
    }

    #[test]
    fn the_socket_of_a_dead_server_is_replaced_and_a_live_one_left_alone() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let path = dir.path().join("a.sock");
        let dead = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        refused(&path, "another program listens");
        drop(dead);
        assert!(path.exists());
        let file = SocketFile::listen(&path, 1).expect("replaced");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        refused(&path, "another program listens");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_or_not_ours_is_never_removed() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let path = dir.path().join("a.sock");
        fs::write(&path, "precious").expect("written");
        refused(&path, "no socket");
        fs::remove_file(&path).expect("removed");
        let file = SocketFile::listen(&path, 1).expect("bound");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "another's").expect("written");
        drop(file);
        assert!(path.exists());
        refused(&dir.path().join("x".repeat(200)), "too long");
    }
}
