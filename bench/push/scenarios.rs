//! What is measured, round for round.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::place::Place;
use crate::report::Table;
use crate::server::Server;
use crate::sink::Manner;
use crate::{Fallible, Options, peers};

/// Users of one call where the calls are not what is measured.
const USERS: usize = 1000;
const CALLERS: usize = 4;
/// Nothing happens for so long: it will not happen any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// From claimed to verdict: deliveries lie in the store when the courier starts. What it used until it
/// was ready is that of the start before, which had nothing to send.
pub fn send(options: &Options) -> Fallible<()> {
    let mut table = Table::default();
    let answer = options.answer.unwrap_or_default();
    for round in 0..options.rounds {
        for &streams in &options.streams {
            let manner = Manner {
                streams,
                delay: answer,
            };
            let row = format!("Lineman, {streams} streams");
            send_ours(options, manner, &row, &mut table)?;
            for peer in peers::ALL {
                let Some(dir) = &options.peers else { break };
                let row = format!("{}, {streams} streams", peer.name);
                let place = Place::new(manner)?;
                let sent = peer.run(dir, &place, options.count, streams)?;
                check(&place, sent.count)?;
                table.add(
                    &row,
                    "CPU, µs",
                    sent.cpu.as_secs_f64() * 1e6 / sent.count as f64,
                );
                let rate = sent.count as f64 / sent.took.as_secs_f64();
                table.add(&row, "per second", rate);
            }
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    table.print();
    Ok(())
}

fn send_ours(options: &Options, manner: Manner, row: &str, table: &mut Table) -> Fallible<()> {
    let place = Place::new(manner)?;
    let count = filled(options, &place)?;
    let idle = Server::start(&place, &options.server, options.store.as_deref(), false)?;
    let start = idle.cpu("courier")?;
    drop(idle);
    let server = Server::start(&place, &options.server, options.store.as_deref(), true)?;
    let begun = Instant::now();
    let (first, last) = watch(&place, count, |_| {})?;
    settle(&server)?;
    let used = server.cpu("courier")?.since(start);
    check(&place, count)?;
    let each = |nanos: u64| nanos as f64 / 1000.0 / count as f64;
    table.add(row, "CPU, µs", each(used.all - used.store));
    table.add(row, "of it, store, µs", each(used.store));
    let took = last.max(begun) - first.max(begun);
    table.add(row, "per second", count as f64 / took.as_secs_f64());
    Ok(())
}

/// A store with deliveries that nobody has sent; how many.
fn filled(options: &Options, place: &Place) -> Fallible<u64> {
    let server = Server::start(place, &options.server, options.store.as_deref(), false)?;
    let calls = options.count / USERS;
    server.register(calls * USERS)?;
    server.notify(calls, USERS, CALLERS)?;
    Ok((calls * USERS) as u64)
}

/// Each connection's answers, of those in the middle half of a run, beside streams / answer time.
pub fn pace(options: &Options) -> Fallible<()> {
    let mut table = Table::default();
    let delay = options.answer.unwrap_or(Duration::from_millis(40));
    for _ in 0..options.rounds {
        for &streams in &options.streams {
            let place = Place::new(Manner { streams, delay })?;
            let count = filled(options, &place)?;
            let mut samples = Vec::new();
            let server = Server::start(&place, &options.server, options.store.as_deref(), true)?;
            watch(&place, count, |answered| {
                if answered >= count / 4 && answered <= count * 3 / 4 {
                    samples.push((Instant::now(), place.tally.by_connection()));
                }
            })?;
            settle(&server)?;
            check(&place, count)?;
            let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
                return Err("it was over too soon: --count more".into());
            };
            let full = f64::from(streams) / delay.as_secs_f64();
            let row = format!("{streams} streams");
            for (nth, answered) in last.1.iter().enumerate() {
                let before = first.1.get(nth).copied().unwrap_or(0);
                let rate = (answered - before) as f64 / (last.0 - first.0).as_secs_f64();
                table.add(&row, "of streams / answer time, %", 100.0 * rate / full);
            }
            table.add(&row, "connections", last.1.len() as f64);
        }
    }
    table.print();
    Ok(())
}

/// From accepted to settled, all at the same time.
pub fn all(options: &Options) -> Fallible<()> {
    let mut table = Table::default();
    for round in 0..options.rounds {
        for &users in &options.users {
            let manner = Manner {
                streams: options.streams[0],
                delay: options.answer.unwrap_or_default(),
            };
            let place = Place::new(manner)?;
            let store = options.store.as_deref();
            let server = Server::start(&place, &options.server, store, true)?;
            let calls = options.count / users;
            let count = (calls * users) as u64;
            server.register(count as usize)?;
            let before = server.cpu("courier")?;
            let begun = Instant::now();
            let accepted = server.notify(calls, users, options.callers)?;
            watch(&place, count, |_| {})?;
            settle(&server)?;
            let took = begun.elapsed();
            let used = server.cpu("courier")?.since(before);
            check(&place, count)?;
            let row = format!("{users} users a call");
            let each = |nanos: u64| nanos as f64 / 1000.0 / count as f64;
            table.add(&row, "courier's CPU, µs", each(used.all));
            table.add(&row, "of it, store, µs", each(used.store));
            table.add(&row, "accepted, s", accepted.as_secs_f64());
            table.add(&row, "settled, s", took.as_secs_f64());
            table.add(
                &row,
                "settled per second",
                count as f64 / took.as_secs_f64(),
            );
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    table.print();
    Ok(())
}

/// How fast it says 202 when nothing is sent.
pub fn accept(options: &Options) -> Fallible<()> {
    let mut table = Table::default();
    for round in 0..options.rounds {
        for &users in &options.users {
            let place = Place::new(Manner {
                streams: 1,
                delay: Duration::ZERO,
            })?;
            let store = options.store.as_deref();
            let server = Server::start(&place, &options.server, store, false)?;
            let calls = options.count / users;
            let count = calls * users;
            server.register(count)?;
            let before = server.cpu("courier")?;
            let took = server.notify(calls, users, options.callers)?;
            let used = server.cpu("courier")?.since(before);
            let row = format!("{users} users a call");
            let each = |nanos: u64| nanos as f64 / 1000.0 / count as f64;
            table.add(&row, "courier's CPU, µs", each(used.all));
            table.add(&row, "of it, store, µs", each(used.store));
            table.add(&row, "accepted, s", took.as_secs_f64());
            table.add(&row, "calls per second", calls as f64 / took.as_secs_f64());
            let rate = count as f64 / took.as_secs_f64();
            table.add(&row, "deliveries per second", rate);
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    table.print();
    Ok(())
}

/// Waits until all are answered; when the first and the last were. `see` is told how many, often.
fn watch(place: &Place, count: u64, mut see: impl FnMut(u64)) -> Fallible<(Instant, Instant)> {
    let mut before = (0, Instant::now());
    let mut first = None;
    loop {
        let answered = place.tally.answered();
        if answered > before.0 {
            before = (answered, Instant::now());
            first.get_or_insert(before.1);
        }
        see(answered);
        if answered >= count {
            return Ok((first.unwrap_or(before.1), before.1));
        }
        if before.1.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(place.file("stderr")).unwrap_or_default();
            return Err(format!("{answered} of {count} came, and no more: {log}").into());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn settle(server: &Server<'_>) -> Fallible<()> {
    let begun = Instant::now();
    while !server.is_settled()? {
        if begun.elapsed() > PATIENCE {
            return Err("not all were settled".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Each came once, and was a notification.
fn check(place: &Place, count: u64) -> Fallible<()> {
    let answered = place.tally.answered();
    let strange = place.tally.strange.load(Relaxed);
    match (answered, strange) {
        (told, 0) if told == count => Ok(()),
        _ => Err(format!("{answered} came of {count}, {strange} were strange").into()),
    }
}
