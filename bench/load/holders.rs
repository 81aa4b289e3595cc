//! The child processes that hold connections (hold.rs), as whoever starts them
//! sees them. Dropping them ends them.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Fallible;
use crate::options::TargetOptions;
use crate::pusher::App;
use crate::target::Target;

/// What they hold together.
pub struct Held {
    pub connections: usize,
    pub per_process: usize,
    /// Which these are spread over.
    pub channels: usize,
    /// As Pusher clients.
    pub pusher: bool,
}

pub struct Holders(Vec<Holder>);

struct Holder {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Holders {
    pub fn start(held: &Held, settings: &TargetOptions, target: &Target) -> Fallible<Holders> {
        let mut holders = Vec::new();
        let mut offset = 0;
        while offset < held.connections {
            let count = held.per_process.min(held.connections - offset);
            let source = match target.address.ip().is_loopback() && target.address.is_ipv4() {
                true => Some(source_address(holders.len())?),
                false => None,
            };
            holders.push(Holder::start(
                held,
                (count, offset, source),
                settings,
                target,
            )?);
            offset += count;
        }
        Ok(Holders(holders))
    }

    pub fn tell(&mut self, order: &str) -> Fallible<()> {
        // In one write: a holder takes what it reads at once for one order.
        let line = format!("{order}\n");
        for holder in &mut self.0 {
            holder.orders.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    pub fn expect(&mut self, wanted: &str) -> Fallible<()> {
        let mut holders = self.0.iter_mut();
        holders.try_for_each(|holder| holder.expect(wanted))
    }
}

impl Holder {
    fn start(
        held: &Held,
        (count, offset, source): (usize, usize, Option<Ipv4Addr>),
        settings: &TargetOptions,
        target: &Target,
    ) -> Fallible<Holder> {
        let usual = match held.pusher {
            true => App::of(settings).socket_path(),
            false => "/".to_owned(),
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("hold");
        let mut set = |name: &str, value: &str| {
            command.args([name, value]);
        };
        set("--address", &target.address.to_string());
        set("--path", settings.path.as_deref().unwrap_or(&usual));
        set("--connections", &count.to_string());
        set("--offset", &offset.to_string());
        set("--channels", &held.channels.to_string());
        set("--app-id", &settings.app_id);
        set("--app-key", &settings.app_key);
        set("--app-secret", &settings.app_secret);
        if let Some(source) = source {
            set("--source", &source.to_string());
        }
        command.args(settings.tls.words(target.authority.as_deref()));
        command.args(held.pusher.then_some("--pusher"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no standard input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Holder {
            child,
            orders,
            answers,
        })
    }

    fn expect(&mut self, wanted: &str) -> Fallible<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim() != wanted {
            return Err("a process that holds connections gave up (see above)".into());
        }
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the range of addresses of a holding process starts: the first one
/// takes 127.0.1.2, 127.0.1.3, …, the second 127.0.2.2 and so on.
fn source_address(number: usize) -> Fallible<Ipv4Addr> {
    let third = u8::try_from(number + 1).map_err(|_| "more than 255 holding processes")?;
    Ok(Ipv4Addr::new(127, 0, third, 2))
}
