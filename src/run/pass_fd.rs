//! A descriptor sent over a Unix socket (unix(7), SCM_RIGHTS), with one byte that means nothing.
//! Does not know what it is for. Invariant: what was received has one owner and is closed on exec.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// A header and one descriptor; the words give the alignment that the header needs.
type Control = [u64; 3];

/// A message with room for one byte and one descriptor, both of which must outlive it.
fn message(data: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: an all-zero header is a valid value: null pointers and zeros.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    message
}

fn one_byte(byte: &mut u8) -> libc::iovec {
    libc::iovec {
        iov_base: (byte as *mut u8).cast(),
        iov_len: 1,
    }
}

/// Sends a copy of `fd`.
pub fn send(socket: &UnixStream, fd: BorrowedFd<'_>) -> io::Result<()> {
    let (mut byte, mut control) = (0, Control::default());
    let mut data = one_byte(&mut byte);
    let mut message = message(&mut data, &mut control);
    let length = size_of::<RawFd>() as libc::c_uint;
    // SAFETY: both compute a length from a length; the header is the first of `control`, which has
    // room and alignment for it and for one descriptor, as the assertion in the tests holds.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(length) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(fd.as_raw_fd());
    }
    // SAFETY: the message points to live locals only. No SIGPIPE: the runtime ignores it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, 0) };
    match sent {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for a descriptor; `None` when the other end was closed.
pub fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    loop {
        let (mut byte, mut control) = (0, Control::default());
        let mut data = one_byte(&mut byte);
        let mut message = message(&mut data, &mut control);
        #[cfg(target_os = "linux")]
        let flags = libc::MSG_CMSG_CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let flags = 0;
        // SAFETY: the message points to live locals only, with their true lengths.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
        if received == 0 {
            return Ok(None);
        }
        if received < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        // SAFETY: the kernel has filled `control` and told how far; the macro gives a header within
        // that, or null.
        let header = unsafe { libc::CMSG_FIRSTHDR(&message).as_ref() };
        let Some(header) = header.filter(|it| it.cmsg_type == libc::SCM_RIGHTS) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        // SAFETY: a message of this type carries a descriptor; it is ours alone, since the kernel
        // just made it for us.
        return Ok(Some(unsafe {
            OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned())
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn there_is_room_for_a_descriptor() {
        // SAFETY: computes a length from a length.
        let space = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as libc::c_uint) };
        assert!(space as usize <= size_of::<Control>());
    }

    #[test]
    fn what_is_sent_is_the_same_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        for file in &files {
            send(&ours, file.as_fd()).unwrap();
        }
        for (file, text) in files.iter_mut().zip(["one", "two"]) {
            let mut copy = File::from(receive(&theirs).unwrap().unwrap());
            copy.write_all(text.as_bytes()).unwrap();
            let mut found = String::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_string(&mut found).unwrap();
            assert_eq!(found, text);
        }
        drop(ours);
        assert!(receive(&theirs).unwrap().is_none());
    }

    #[test]
    fn a_byte_without_a_descriptor_is_no_message() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"x").unwrap();
        assert!(receive(&theirs).is_err());
    }
}
