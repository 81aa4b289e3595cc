//! Telling the service manager how the server is, by sd_notify(3): ready, reloading, stopping,
//! alive. Without a service manager it says nothing. Does not know why any of it happens.
//! Invariant: the manager that does not listen costs nothing: what it does not take is dropped.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::base::now::Moment;

/// The variables of sd_notify(3) and sd_watchdog_enabled(3). Children must not have them: they
/// would speak for us.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// See the file's head.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often the manager wants a sign of life.
    alive_every: Option<Duration>,
    alive_due: Option<Moment>,
}

impl Notify {
    /// By what the environment says.
    pub fn new(now: Moment) -> Notify {
        let variable = |name: &str| std::env::var(name).ok();
        let to = variable(VARIABLES[0]).and_then(|name| {
            let address = address(&name)?;
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that is busy must not hold us up.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let alive_every = alive_every(variable, std::process::id()).filter(|_| to.is_some());
        Notify {
            to,
            alive_every,
            alive_due: alive_every.map(|every| now + every),
        }
    }

    pub fn ready(&self, status: &str) {
        let pid = std::process::id();
        self.send(&format!("READY=1\nMAINPID={pid}\nSTATUS={status}"));
    }

    /// To be followed by `ready`, however the attempt went.
    pub fn reloading(&self, monotonic_micros: u64) {
        self.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={monotonic_micros}\nSTATUS=reloading"
        ));
    }

    /// `within`: how long it may take; the manager would lose patience otherwise.
    pub fn stopping(&self, within: Duration) {
        let micros = within.as_micros();
        self.send(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=stopping"
        ));
    }

    /// Sends the sign of life when it is due.
    pub fn handle_elapsed(&mut self, now: Moment) {
        if let (Some(due), Some(every)) = (self.alive_due, self.alive_every)
            && due <= now
        {
            self.alive_due = Some(now + every);
            self.send("WATCHDOG=1");
        }
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.alive_due
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.to {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// A path, or a name in the abstract space after an `@`.
fn address(name: &str) -> Option<SocketAddr> {
    match name.as_bytes().first()? {
        b'/' => SocketAddr::from_pathname(name).ok(),
        #[cfg(target_os = "linux")]
        b'@' => SocketAddr::from_abstract_name(&name.as_bytes()[1..]).ok(),
        _ => None,
    }
}

/// Half of what the manager waits, as sd_watchdog_enabled(3) advises.
fn alive_every(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    let number = |name: &str| variable(name).and_then(|text| text.parse::<u64>().ok());
    let micros = number(VARIABLES[1]).filter(|micros| *micros > 0)?;
    // Absent: meant for whoever is there. Another number: for somebody else.
    if variable(VARIABLES[2]).is_some() && number(VARIABLES[2]) != Some(u64::from(pid)) {
        return None;
    }
    Some(Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_fed_at_half_its_time_and_only_if_it_is_ours() {
        let check = |micros: &str, pid: Option<&str>, expected: Option<u64>| {
            let variable = |name: &str| match name {
                "WATCHDOG_USEC" => Some(micros.to_string()),
                _ => pid.map(str::to_string),
            };
            let found = alive_every(variable, 7).map(|every| every.as_micros() as u64);
            assert_eq!(found, expected);
        };
        check("3000000", None, Some(1_500_000));
        check("3000000", Some("7"), Some(1_500_000));
        check("3000000", Some("8"), None);
        check("0", None, None);
        check("soon", None, None);
    }

    #[test]
    fn a_manager_is_reached_by_path_or_by_abstract_name() {
        assert!(address("/run/x").is_some() && address("@x").is_some());
        assert!(address("x").is_none() && address("").is_none());
    }
}
