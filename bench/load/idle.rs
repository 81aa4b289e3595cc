//! What a connection costs that does nothing: memory of the server's processes
//! before, with all connections open, and after each has sent one message and
//! got its answer; processor time while nothing happens. If asked for: how long
//! one event takes to reach all of them, and whether all find a place again
//! when the server's workers are replaced under them.
//!
//! The connections are held by child processes (hold.rs), each with source
//! addresses of its own, because both the descriptors of a process and the
//! ports of an address are limited.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::hold;
use crate::holders::{Held, Holders};
use crate::options::IdleOptions;
use crate::process;
use crate::pusher::App;
use crate::report::Report;
use crate::requests::unix_time;
use crate::target::Target;

const SETTLE_STEP: Duration = Duration::from_millis(250);
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

pub fn run(options: &IdleOptions, target: &Target, report: &mut Report) -> Fallible<()> {
    let connections = options.connections as f64;
    // The holders are started first: they share pages of libraries with the
    // server, whose proportional share would shrink with each of them.
    let held = Held {
        connections: options.connections,
        per_process: options.per_process,
        channels: options.channels,
        pusher: options.subscribe,
    };
    let mut holders = Holders::start(&held, &options.target, target)?;
    holders.expect("ready")?;
    let empty = settled_memory(target)?;
    let kernel_before = process::kernel_memory();
    let started = Instant::now();
    holders.tell("open")?;
    holders.expect("open")?;
    let seconds = started.elapsed().as_secs_f64();
    let opened = settled_memory(target)?;
    let kernel_after = process::kernel_memory();
    let idle_cpu = idle_load(target, Duration::from_secs_f64(options.target.seconds));
    holders.tell("message")?;
    holders.expect("answered")?;
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
        let what = "all are back after a reload, none refused, after";
        report.add(what, "s", seconds);
    }
    Ok(())
}

/// One event to the channel of all, over a connection of its own.
pub fn publish_news(target: &Target, app: &App) -> Fallible<()> {
    let (mut request, host) = (Vec::new(), target.address.to_string());
    app.write_publish(&mut request, &host, unix_time(), "bench-0", hold::NEWS);
    let mut stream = TcpStream::connect(target.address)?;
    stream.write_all(&request)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    match head.ends_with(b" 200") {
        true => Ok(()),
        false => Err("the event for all was not taken".into()),
    }
}

/// Publishes one event to the channel of all, if there is one; seconds until each has it.
fn reach_all(
    options: &IdleOptions,
    target: &Target,
    holders: &mut Holders,
) -> Fallible<Option<f64>> {
    if !options.subscribe || options.channels != 1 {
        return Ok(None);
    }
    holders.tell("listen")?;
    holders.expect("listening")?;
    let started = Instant::now();
    publish_news(target, &App::of(&options.target))?;
    holders.expect("heard")?;
    Ok(Some(started.elapsed().as_secs_f64()))
}

/// Has all workers replaced, if that is wanted; seconds until all clients are
/// with the new ones.
fn reload_under(
    options: &IdleOptions,
    target: &Target,
    holders: &mut Holders,
) -> Fallible<Option<f64>> {
    if !options.reload {
        return Ok(None);
    }
    holders.tell("return")?;
    holders.expect("returning")?;
    let started = Instant::now();
    target.reload()?;
    holders.expect("returned")?;
    Ok(Some(started.elapsed().as_secs_f64()))
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
