//! What a connection costs that does nothing: memory of the server's processes
//! before, with all connections open, and after each has sent one message and
//! got its answer; processor time while nothing happens. If asked for: how long
//! one event takes to reach all of them, and whether all find a place again
//! when the server's workers are replaced under them.
//!
//! The connections are held by child processes (hold.rs), each with source
//! addresses of its own, because both the descriptors of a process and the
//! ports of an address are limited.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::hold;
use crate::options::IdleOptions;
use crate::process;
use crate::pusher::App;
use crate::report::Report;
use crate::requests::unix_time;
use crate::target::Target;

const SETTLE_STEP: Duration = Duration::from_millis(250);
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

struct Holder {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Holder {
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

pub fn run(options: &IdleOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let connections = options.connections as f64;
    // The holders are started first: they share pages of libraries with the
    // server, whose proportional share would shrink with each of them.
    let mut holders = start_holders(options, target)?;
    expect_all(&mut holders, "ready")?;
    let empty = settled_memory(target)?;
    let kernel_before = process::kernel_memory();
    let started = Instant::now();
    tell_all(&mut holders, "open")?;
    expect_all(&mut holders, "open")?;
    let seconds = started.elapsed().as_secs_f64();
    let opened = settled_memory(target)?;
    let kernel_after = process::kernel_memory();
    let idle_cpu = idle_load(target, Duration::from_secs_f64(options.target.seconds));
    tell_all(&mut holders, "message")?;
    expect_all(&mut holders, "answered")?;
    let used = settled_memory(target)?;
    let reached = reach_all(options, target, &mut holders)?;
    let returned = reload_under(options, target, &mut holders)?;

    let each = |more: u64, less: u64| (more as f64 - less as f64) / connections;
    report.add("connections", "held", connections);
    report.add("opened in", "s", seconds);
    report.add("server processes", "", target.processes().len() as f64);
    report.add("memory of the empty server", "KiB", empty as f64 / 1024.0);
    report.add("memory per connection", "bytes", each(opened, empty));
    report.add(
        "memory per connection after a message",
        "bytes",
        each(used, empty),
    );
    report.add(
        "kernel TCP pages per connection, both ends",
        "bytes",
        each(kernel_after.0, kernel_before.0),
    );
    report.add(
        "kernel slab per connection, both ends",
        "bytes",
        each(kernel_after.1, kernel_before.1),
    );
    report.add("server load while idle", "cores", idle_cpu);
    if let Some(seconds) = reached {
        report.add("one event has reached all after", "s", seconds);
    }
    if let Some(seconds) = returned {
        report.add(
            "all are back after a reload, none refused, after",
            "s",
            seconds,
        );
    }
    Ok(())
}

fn tell_all(holders: &mut [Holder], order: &str) -> Fallible<()> {
    // In one write: a holder takes what it reads at once for one order.
    let line = format!("{order}\n");
    for holder in holders {
        holder.orders.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn expect_all(holders: &mut [Holder], wanted: &str) -> Fallible<()> {
    let mut holders = holders.iter_mut();
    holders.try_for_each(|holder| holder.expect(wanted))
}

/// Publishes one event to the channel of all, if there is one; seconds until each has it.
fn reach_all(
    options: &IdleOptions,
    target: &Target,
    holders: &mut [Holder],
) -> Fallible<Option<f64>> {
    if !options.subscribe || options.channels != 1 {
        return Ok(None);
    }
    tell_all(holders, "listen")?;
    expect_all(holders, "listening")?;
    let app = App::of(&options.target);
    let (mut request, host) = (Vec::new(), target.address.to_string());
    app.write_publish(&mut request, &host, unix_time(), "bench-0", hold::NEWS);
    let started = Instant::now();
    let mut stream = TcpStream::connect(target.address)?;
    stream.write_all(&request)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    if !head.ends_with(b" 200") {
        return Err("the event for all was not taken".into());
    }
    expect_all(holders, "heard")?;
    Ok(Some(started.elapsed().as_secs_f64()))
}

/// Has all workers replaced, if that is wanted; seconds until all clients are
/// with the new ones.
fn reload_under(
    options: &IdleOptions,
    target: &Target,
    holders: &mut [Holder],
) -> Fallible<Option<f64>> {
    if !options.reload {
        return Ok(None);
    }
    tell_all(holders, "return")?;
    expect_all(holders, "returning")?;
    let started = Instant::now();
    target.reload()?;
    expect_all(holders, "returned")?;
    Ok(Some(started.elapsed().as_secs_f64()))
}

fn start_holders(options: &IdleOptions, target: &Target) -> Fallible<Vec<Holder>> {
    let settings = &options.target;
    let app = App::of(settings);
    let usual = if options.subscribe {
        app.socket_path()
    } else {
        "/".to_owned()
    };
    let path = settings.path.as_deref().unwrap_or(&usual);
    let this = std::env::current_exe()?;
    let mut holders = Vec::new();
    let mut offset = 0;
    while offset < options.connections {
        let count = options.per_process.min(options.connections - offset);
        let mut command = Command::new(&this);
        command.arg("hold");
        let mut set = |name: &str, value: &str| {
            command.args([name, value]);
        };
        set("--address", &target.address.to_string());
        set("--path", path);
        set("--connections", &count.to_string());
        set("--offset", &offset.to_string());
        set("--channels", &options.channels.to_string());
        set("--app-id", &settings.app_id);
        set("--app-key", &settings.app_key);
        set("--app-secret", &settings.app_secret);
        if target.address.ip().is_loopback() && target.address.is_ipv4() {
            set("--source", &source_address(holders.len())?.to_string());
        }
        command.args(settings.tls.words(target.authority.as_deref()));
        command.args(options.subscribe.then_some("--pusher"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no standard input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        holders.push(Holder {
            child,
            orders,
            answers,
        });
        offset += count;
    }
    Ok(holders)
}

/// Where the range of addresses of a holding process starts: the first one
/// takes 127.0.1.2, 127.0.1.3, …, the second 127.0.2.2 and so on.
fn source_address(number: usize) -> Fallible<Ipv4Addr> {
    let third = u8::try_from(number + 1).map_err(|_| "more than 255 holding processes")?;
    Ok(Ipv4Addr::new(127, 0, third, 2))
}

/// Memory once three readings in a row agree within half a per cent.
fn settled_memory(target: &Target) -> Fallible<u64> {
    let started = Instant::now();
    let (mut last, mut calm) = (0u64, 0);
    loop {
        let now = process::memory_of(&target.processes())?;
        calm = if now.abs_diff(last) * 200 <= last {
            calm + 1
        } else {
            0
        };
        last = now;
        if calm >= 3 || started.elapsed() > SETTLE_LIMIT {
            return Ok(now);
        }
        thread::sleep(SETTLE_STEP);
    }
}

fn idle_load(target: &Target, time: Duration) -> f64 {
    let pids = target.processes();
    let (before, started) = (process::cpu_of(&pids), Instant::now());
    thread::sleep(time);
    let used = process::cpu_of(&pids).since(before).nanos as f64;
    used / 1e9 / started.elapsed().as_secs_f64()
}
