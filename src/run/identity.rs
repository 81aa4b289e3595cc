//! Whose rights the children have: a user and a group looked up once, and the calls by which a
//! child gives up the master's between fork and exec. Does not know who is to be started.
//! Invariant: a child has exactly these rights or does not come to be.

use std::ffi::{CStr, CString};
use std::io;

use crate::config::Config;
use crate::run::exit::{Exit, Failure};
use crate::run::os::{self, Forked};

/// Supplementary groups of one user; the kernel allows more, nobody has them.
const GROUPS_MAX: usize = 1024;
/// What the system's databases say about one name.
const ENTRY_BYTES: usize = 16 * 1024;

/// A user with everything that goes with it, ready to be put on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
}

impl Identity {
    /// Looks up what the configuration names; `None` when the children keep our rights.
    pub fn of(config: &Config) -> Result<Option<Identity>, Failure> {
        let Some(name) = &config.user else {
            return Ok(None);
        };
        let unknown = |what: &str, name: &str| {
            Failure::new(
                Exit::BadConfig,
                format!("{what} = \"{name}\": there is none"),
            )
        };
        let (uid, own) = user(name).ok_or_else(|| unknown("user", name))?;
        let gid = match &config.group {
            Some(group) => gid_of(group).ok_or_else(|| unknown("group", group))?,
            None => own,
        };
        if os::effective_uid() != 0 {
            if os::effective_uid() == uid && config.group.is_none() {
                return Ok(None);
            }
            let message = format!("only root can start the workers as user \"{name}\"");
            return Err(Failure::new(Exit::NotPermitted, message));
        }
        if !cfg!(target_os = "linux") {
            let message = "user: dropping rights is available on Linux only";
            return Err(Failure::new(Exit::BadConfig, message));
        }
        Ok(Some(Identity {
            name: name.clone(),
            uid,
            gid,
            groups: groups(name, gid),
        }))
    }

    /// Whether a child of ours could put it on: one does, and ends. A server whose children cannot
    /// come to be must not start. The process must have one thread.
    pub fn try_on(&self) -> Result<(), Failure> {
        // SAFETY: the server has one thread until its log starts, which is after its sockets.
        let code = match unsafe { os::fork() } {
            Ok(Forked::Child) => {
                let refused = self.put_on().err().and_then(|error| error.raw_os_error());
                // The numbers of errors are small; one that is not still is none of success.
                os::exit_at_once(refused.map_or(0, |code| u8::try_from(code).unwrap_or(u8::MAX)))
            }
            Ok(Forked::Parent(pid)) => os::wait_for(pid),
            Err(error) => return Err(Failure::io("cannot try the user's rights", &error)),
        };
        if code == Some(0) {
            return Ok(());
        }
        let why = code.map_or("killed".to_string(), |code| {
            io::Error::from_raw_os_error(code).to_string()
        });
        let message = format!("the workers cannot become user \"{}\": {why}", self.name);
        Err(Failure::new(Exit::NotPermitted, message))
    }

    /// Gives up every right but these. Safe to call between fork and exec.
    pub fn put_on(&self) -> io::Result<()> {
        let count = self.groups.len();
        // SAFETY: the pointer is to `count` live numbers.
        check(unsafe { libc::setgroups(count as _, self.groups.as_ptr()) })?;
        // SAFETY: a plain number.
        check(unsafe { libc::setgid(self.gid) })?;
        // SAFETY: a plain number. The user last: without root's rights the calls above fail.
        check(unsafe { libc::setuid(self.uid) })?;
        // SAFETY: a plain number. It must not be possible to go back.
        if self.uid != 0 && unsafe { libc::setuid(0) } == 0 {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(())
    }
}

/// Nothing this process execs can have more rights than it has, and those that a service manager
/// lent us stay with us: workers open no ports. Safe to call between fork and
/// exec.
pub fn renounce_new_rights() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let (one, zero): (libc::c_ulong, libc::c_ulong) = (1, 0);
        // SAFETY: plain numbers.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) })?;
        let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
        // SAFETY: plain numbers. A kernel that knows no such capabilities has none to clear.
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, zero, zero, zero) };
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn user(name: &str) -> Option<(libc::uid_t, libc::gid_t)> {
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0 as libc::c_char; ENTRY_BYTES];
    // SAFETY: an all-zero passwd is a valid value: null pointers and zeros.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::passwd = std::ptr::null_mut();
    // SAFETY: all pointers are to live locals, and the length is that of the buffer.
    let result = unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            &mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &mut found,
        )
    };
    (result == 0 && !found.is_null()).then_some((entry.pw_uid, entry.pw_gid))
}

fn gid_of(name: &str) -> Option<libc::gid_t> {
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0 as libc::c_char; ENTRY_BYTES];
    // SAFETY: an all-zero group is a valid value: null pointers and zeros.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::group = std::ptr::null_mut();
    // SAFETY: all pointers are to live locals, and the length is that of the buffer.
    let result = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            &mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &mut found,
        )
    };
    (result == 0 && !found.is_null()).then_some(entry.gr_gid)
}

/// The groups the user is in, `gid` first. Looked up here because a child between fork and exec
/// may not ask a database.
fn groups(name: &str, gid: libc::gid_t) -> Vec<libc::gid_t> {
    let mut groups = vec![gid; GROUPS_MAX];
    let found = CString::new(name)
        .ok()
        .and_then(|name| list_groups(&name, gid, &mut groups));
    groups.truncate(found.unwrap_or(1));
    groups
}

#[cfg(target_os = "linux")]
fn list_groups(name: &CStr, gid: libc::gid_t, groups: &mut [libc::gid_t]) -> Option<usize> {
    let mut count = groups.len() as libc::c_int;
    // SAFETY: the name is zero-ended; the list has `count` live places.
    let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
    usize::try_from(count).ok().filter(|_| result >= 0)
}

#[cfg(not(target_os = "linux"))]
fn list_groups(_: &CStr, _: libc::gid_t, _: &mut [libc::gid_t]) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_nobody_in_particular_is_not() {
        assert_eq!(user("root"), Some((0, 0)));
        assert_eq!(user("no such user"), None);
        assert_eq!(gid_of("no such group"), None);
        assert_eq!(groups("root", 0)[0], 0);
    }
}
