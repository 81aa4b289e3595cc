//! Other senders: each is a program in `peers/` that sends so many notifications with so many under
//! way at a time, and prints what it used after a few that warm it up. Installed by `set_up`, with the
//! versions that lie beside them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::Fallible;
use crate::place::{KEY_ID, Place, TEAM_ID, TOPIC};

pub struct Peer {
    pub name: &'static str,
    words: fn(&Path) -> Vec<PathBuf>,
}

pub const ALL: [Peer; 3] = [
    Peer {
        name: "a2",
        words: |dir| vec![dir.join("target/release/peer-a2")],
    },
    Peer {
        name: "@parse/node-apn",
        words: |dir| vec!["node".into(), dir.join("node-apn.mjs")],
    },
    Peer {
        name: "aioapns",
        words: |dir| vec![dir.join(".venv/bin/python"), dir.join("aioapns_peer.py")],
    },
];

/// Times in nanoseconds; `warm` were sent before these were taken.
#[derive(Deserialize)]
struct Told {
    sent: u64,
    warm: u64,
    cpu: u64,
    took: u64,
}

pub struct Sent {
    /// All of them.
    pub count: u64,
    /// For each that was measured.
    pub cpu: Duration,
    pub took: Duration,
}

impl Peer {
    pub fn run(&self, dir: &Path, place: &Place, count: usize, streams: u32) -> Fallible<Sent> {
        let words = (self.words)(dir);
        let output = Command::new(&words[0])
            .args(&words[1..])
            .arg(place.port.to_string())
            .arg(place.dir.path())
            .args([count.to_string(), streams.to_string()])
            .args([KEY_ID, TEAM_ID, TOPIC])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let told: Told = serde_json::from_str(text.trim()).map_err(|_| {
            let why = String::from_utf8_lossy(&output.stderr);
            format!("{}: {text} {why}", self.name)
        })?;
        let whole = |nanos: u64| Duration::from_nanos(nanos * (told.sent + told.warm) / told.sent);
        Ok(Sent {
            count: told.sent + told.warm,
            cpu: whole(told.cpu),
            took: whole(told.took),
        })
    }
}

/// Copies the programs to `dir` and installs what they need there.
pub fn set_up(dir: &Path) -> Fallible<()> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/push/peers");
    std::fs::create_dir_all(dir)?;
    run(Command::new("cp").arg("-r").arg(own.join(".")).arg(dir))?;
    run(Command::new("cargo")
        .args(["build", "--release", "--manifest-path"])
        .arg(dir.join("a2/Cargo.toml"))
        .arg("--target-dir")
        .arg(dir.join("target")))?;
    let venv = dir.join(".venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip"))
        .args(["install", "--quiet", "-r"])
        .arg(dir.join("requirements.txt")))?;
    run(Command::new("npm")
        .args(["install", "--no-fund", "--no-audit"])
        .current_dir(dir))
}

fn run(command: &mut Command) -> Fallible<()> {
    let status = command.status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {status}").into()),
    }
}
