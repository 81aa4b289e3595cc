//! A way to a server that can go wrong at the moment a test wants: requests or answers are lost, and
//! the connection ends. Invariant: after that it is a good one again.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What happens to the next bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// The next answer is dropped, and the connection ends.
    LosesAnswers,
    /// The next request is.
    LosesRequests,
}

/// See the file's head.
pub struct BadLine {
    pub port: u16,
    trouble: Arc<Mutex<Trouble>>,
    cuts: Arc<AtomicU64>,
}

impl BadLine {
    /// To a port of this machine.
    pub fn to(server: u16) -> BadLine {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let line = BadLine {
            port: listener.local_addr().expect("an address").port(),
            trouble: Arc::new(Mutex::new(Trouble::None)),
            cuts: Arc::default(),
        };
        let (trouble, cuts) = (line.trouble.clone(), line.cuts.clone());
        // It ends with the test.
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let ways = [
                    (&near, &far, Trouble::LosesRequests),
                    (&far, &near, Trouble::LosesAnswers),
                ];
                for (from, to, own) in ways {
                    let ends = [from, to].map(|end| end.try_clone().expect("a copy"));
                    let (trouble, cuts) = (trouble.clone(), cuts.clone());
                    thread::spawn(move || carry(ends, own, &trouble, &cuts));
                }
            }
        });
        line
    }

    pub fn behave(&self, trouble: Trouble) {
        *self.trouble.lock().expect("whole") = trouble;
    }

    /// How often it went wrong.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }
}

fn carry(ends: [TcpStream; 2], own: Trouble, trouble: &Mutex<Trouble>, cuts: &AtomicU64) {
    let [mut from, mut to] = ends;
    let mut bytes = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut trouble = trouble.lock().expect("whole");
        if *trouble == own {
            *trouble = Trouble::None;
            cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
        drop(trouble);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
