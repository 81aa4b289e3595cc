//! The rules that look at the package as a whole: its files, its dependencies, its lock files.

use std::path::{Path, PathBuf};

/// Folders that are made, not written.
const MADE: [&str; 6] = [
    "target",
    ".git",
    "node_modules",
    ".venv",
    "__pycache__",
    ".lineman",
];

/// Runtimes; none may come in by way of a dependency.
const RUNTIMES: [&str; 8] = [
    "async-std",
    "smol",
    "async-executor",
    "async-global-executor",
    "async-io",
    "glommio",
    "monoio",
    "actix-rt",
];

/// What nobody may ask of tokio. It is the traits that h2 reads and writes through, and what
/// PostgreSQL's client needs to run in the store's own thread (`rules::one_runtime`): no threads of its
/// own, no signals, no processes.
const TOKIO_TOO_MUCH: [&str; 4] = ["rt-multi-thread", "process", "signal", "fs"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every written text file under `folder`: its path from the root, and its text.
pub fn files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder of the package");
        for entry in entries {
            let entry = entry.expect("a readable folder");
            let name = entry.file_name();
            let path = entry.path();
            if MADE.iter().any(|made| name == *made) || path.is_symlink() {
                continue;
            }
            match path.is_dir() {
                true => folders.push(path),
                false => found.extend(read_text(path)),
            }
        }
    }
    found.sort();
    found
}

/// `None` for what is not text.
fn read_text(path: PathBuf) -> Option<(String, String)> {
    let bytes = std::fs::read(&path).expect("a readable file");
    let inner = path.strip_prefix(root()).expect("a path under the root");
    let inner = inner.to_str().expect("a path in UTF-8").replace('\\', "/");
    Some((inner, String::from_utf8(bytes).ok()?))
}

/// Paths that exist on one machine only. Written in pieces, as this file is searched too.
pub fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let foreign = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/tmp/", "wt"),
        concat!("/tmp/", "target"),
    ];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in foreign {
            // Behind a name it is a folder of something, an address perhaps.
            let starts = line.match_indices(word).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-~}*".contains(c))
            });
            if starts {
                let number = number + 1;
                found.push(format!(
                    "{path}:{number}: `{word}` exists on one machine only"
                ));
            }
        }
    }
    found
}

/// Dependencies of Cargo.toml whose line gives no reason.
pub fn unreasoned(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut among_dependencies = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(table) = line.strip_prefix('[') {
            among_dependencies = table.trim_end_matches(']').ends_with("dependencies");
            // One table per dependency would have no line of its own.
            if table.contains("dependencies.") {
                let number = number + 1;
                found.push(format!("{path}:{number}: one line per dependency, please"));
            }
        } else if among_dependencies && !line.is_empty() && !line.starts_with('#') {
            let reason = line
                .split_once(" # ")
                .map_or("", |(_, reason)| reason.trim());
            if reason.is_empty() {
                let (name, _) = line.split_once('=').unwrap_or((line, ""));
                let (number, name) = (number + 1, name.trim());
                found.push(format!("{path}:{number}: why do we depend on {name}?"));
            }
        }
    }
    found
}

/// The runtimes in the output of `cargo tree --prefix none --format "{p} {f}"`.
pub fn runtimes(tree: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let mut features = words.flat_map(|word| word.split(','));
        let runs = name == "tokio" && features.any(|it| TOKIO_TOO_MUCH.contains(&it));
        if runs || RUNTIMES.contains(&name) {
            found.push(format!("{name} is a runtime"));
        }
    }
    found
}

/// Lines of a package-lock.json that name where a package came from.
pub fn registries(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let named = lines
        .filter(|(_, line)| line.trim_start().starts_with("\"resolved\"") && line.contains("://"));
    named
        .map(|(number, _)| format!("{path}:{}: names a registry", number + 1))
        .collect()
}
