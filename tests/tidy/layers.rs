//! The layer rule: imports point downward only, and some neighbours may not see each other.

use crate::source::{Source, find_words, is_word};

/// Lowest first; `push` and `mock` stand beside `realtime` and `store` beside `net`, and neighbours do
/// not see each other. `config`, `run`, `cli` and `server` share the top; who of them sees whom stands in `may_use`.
const LAYERS: [&str; 8] = [
    "base", "wire", "realtime", "session", "app", "node", "net", "top",
];

/// What the driver of nodes needs of them.
const NODE_FOR_NET: [&str; 5] = ["Node", "Origin", "Output", "Peer", "Ending"];

fn rank(module: &str) -> Option<usize> {
    let layer = match module {
        "config" | "run" | "cli" | "server" => "top",
        "push" | "mock" => "realtime",
        "store" => "net",
        other => other,
    };
    LAYERS.iter().position(|name| *name == layer)
}

/// Whether a file of module `from` may name something of module `to`.
fn may_use(from: &str, to: &str) -> bool {
    match (from, to) {
        _ if from == to => true,
        ("session", "realtime") | ("app", "session") => false,
        ("session" | "app", "mock") => false,
        ("config", _) => matches!(to, "base" | "wire" | "push" | "app"),
        ("store", _) => matches!(to, "base" | "push"),
        ("run", "config") | ("cli", "config" | "run") | ("server", "cli" | "config") => true,
        _ => matches!((rank(from), rank(to)), (Some(from), Some(to)) if to < from),
    }
}

/// The module a file belongs to; the two roots belong to none.
fn module_of(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("src/")?;
    match inner {
        "lib.rs" => None,
        "main.rs" => Some("server"),
        _ => Some(
            inner
                .split_once('/')
                .map_or_else(|| inner.trim_end_matches(".rs"), |(module, _)| module),
        ),
    }
}

/// Every import that points upward or sideways. Tests of a layer keep to it too.
pub fn check(source: &Source) -> Vec<String> {
    let Some(from) = module_of(&source.path) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (position, path) in paths(&source.code) {
        let place = source.place(position);
        let to = path[0].as_str();
        if rank(to).is_none() {
            found.push(format!("{place}: `{to}` is no layer of the list in lib.rs"));
        } else if !may_use(from, to) {
            found.push(format!("{place}: `{from}` may not use `{to}`"));
        } else if from == "net" && to == "node" {
            let item = path.get(1).map_or("*", String::as_str);
            if !NODE_FOR_NET.contains(&item) {
                let text = format!("{place}: of `node`, `net` may not know `{item}`");
                found.push(text);
            }
        }
    }
    found.extend(check_super(source));
    found
}

/// `super` must not be a way around: a chain of them that reaches the crate is found. Tests stand one
/// module deeper than their file.
fn check_super(source: &Source) -> Vec<String> {
    let inner = source.path.trim_end_matches("/mod.rs");
    let depth = inner.matches('/').count();
    let mut found = Vec::new();
    for at in find_words(&source.code, "super::") {
        let chain = source.code[at..].split("super::");
        let climbed = 1 + chain.skip(1).take_while(|rest| rest.is_empty()).count();
        let in_tests = source.product[at..].starts_with(' ');
        if climbed >= depth + usize::from(in_tests) {
            let place = source.place(at);
            found.push(format!(
                "{place}: name the layer with `crate::`, not with `super`"
            ));
        }
    }
    found
}

/// Every path that starts at the crate, groups taken apart, by where it stands.
pub fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for root in ["crate::", "lineman::"] {
        for position in find_words(code, root) {
            let mut tree = Tree {
                code: code.as_bytes(),
                at: position + root.len(),
                paths: Vec::new(),
            };
            tree.read(&[]);
            found.extend(tree.paths.into_iter().map(|path| (position, path)));
        }
    }
    found
}

/// Reads `a::{b, c::d}` into `a::b` and `a::c::d`.
struct Tree<'a> {
    code: &'a [u8],
    at: usize,
    paths: Vec<Vec<String>>,
}

impl Tree<'_> {
    fn read(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            self.skip_blanks();
            if self.take(b"{") {
                return self.read_group(&path);
            }
            let start = self.at;
            while self
                .code
                .get(self.at)
                .is_some_and(|b| is_word(*b) || *b == b'*')
            {
                self.at += 1;
            }
            path.push(String::from_utf8_lossy(&self.code[start..self.at]).into_owned());
            if !self.take(b"::") {
                return self.paths.push(path);
            }
        }
    }

    fn read_group(&mut self, prefix: &[String]) {
        while self.at < self.code.len() {
            self.skip_blanks();
            if self.take(b"}") {
                return;
            }
            self.read(prefix);
            // A rename does not matter here.
            while self.code.get(self.at).is_some_and(|b| !b",}".contains(b)) {
                self.at += 1;
            }
            self.take(b",");
        }
    }

    fn skip_blanks(&mut self) {
        while self.code.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, what: &[u8]) -> bool {
        let there = self.code[self.at..].starts_with(what);
        if there {
            self.at += what.len();
        }
        there
    }
}
