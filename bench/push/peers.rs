//! Other senders: each is a program in `peers/` that sends so many notifications with so many under
//! way at a time, and prints what it used after a few that warm it up. Installed by `set_up`, with the
//! versions that lie beside them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

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
            .env("A2_HOST", format!("localhost:{}", place.port))
            .env("A2_AUTHORITY", place.file("ca.pem"))
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
    set_up_a2(dir)?;
    let venv = dir.join(".venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip"))
        .args(["install", "--quiet", "-r"])
        .arg(dir.join("requirements.txt")))?;
    run(Command::new("npm")
        .args(["install", "--no-fund", "--no-audit"])
        .current_dir(dir))
}

/// Its host, port and authorities are constants: a copy of it is patched.
fn set_up_a2(dir: &Path) -> Fallible<()> {
    let manifest = dir.join("a2/Cargo.toml");
    let told = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        .output()?;
    let told: Value = serde_json::from_slice(&told.stdout)?;
    let packages = told["packages"].as_array().ok_or("no packages")?;
    let mut those = packages.iter().filter(|it| it["name"] == "a2");
    let there = those.next().and_then(|it| it["manifest_path"].as_str());
    let source = Path::new(there.ok_or("no a2")?)
        .parent()
        .ok_or("no folder")?;
    let copy = dir.join("a2-source");
    run(Command::new("cp").arg("-rT").arg(source).arg(&copy))?;
    run(Command::new("patch")
        .args(["-p1", "--forward", "-i"])
        .arg(dir.join("a2.patch"))
        .current_dir(&copy))?;
    run(Command::new("cargo")
        .args(["build", "--release", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(dir.join("target"))
        .arg("--config")
        .arg(format!("patch.crates-io.a2.path={copy:?}")))
}

fn run(command: &mut Command) -> Fallible<()> {
    let status = command.status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {status}").into()),
    }
}
