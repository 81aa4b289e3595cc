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
const RUNTIMES: [&str; 9] = [
    "tokio",
    "async-std",
    "smol",
    "async-executor",
    "async-global-executor",
    "async-io",
    "glommio",
    "monoio",
    "actix-rt",
];

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

/// The runtimes in the output of `cargo tree --prefix none`.
pub fn runtimes(tree: &str) -> Vec<String> {
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let found = names.filter(|name| RUNTIMES.contains(name));
    found.map(|name| format!("{name} is a runtime")).collect()
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
