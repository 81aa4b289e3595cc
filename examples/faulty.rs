//! A service with bugs on demand, to watch what each one costs: `nc 127.0.0.1 8085`, then `panic`,
//! `block SECONDS`, `spin SECONDS` or `grow MEGABYTES`. Whatever else is said comes back.

use std::time::{Duration, Instant};

use lineman::{Callbacks, Message, Server};

fn main() -> std::process::ExitCode {
    Server::new()
        .listen("text://127.0.0.1:8085", || {
            let mut hoard = Vec::new();
            Callbacks::new().on_message(move |conn, message| {
                let Message::Text(said) = message else { return };
                match said.split_once(' ') {
                    Some(("block", seconds)) => std::thread::sleep(time(seconds)),
                    Some(("spin", seconds)) => spin(time(seconds)),
                    Some(("grow", megabytes)) => {
                        let megabytes: usize = megabytes.parse().unwrap_or(0);
                        // Ones, because the kernel lends zeros without having them.
                        hoard.push(vec![1_u8; megabytes << 20]);
                    }
                    None if said == "panic" => panic!("asked for"),
                    _ => {}
                }
                conn.send(said);
            })
        })
        .run()
}

fn time(seconds: &str) -> Duration {
    Duration::from_secs(seconds.parse().unwrap_or(0))
}

/// A loop without a way out, as a bug would have it.
#[inline(never)]
fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}
