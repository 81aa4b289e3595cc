//! The rules that look at one Rust file: purity, `unsafe`, sizes, heads, words that do not stay.

use crate::source::{Source, end_of_braces, find_words, is_word, line_of};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 60;

/// Time, chance and I/O are arguments in these.
const PURE: [&str; 8] = [
    "base", "wire", "realtime", "push", "mock", "session", "app", "node",
];

/// What would make them depend on more than their arguments.
const IMPURE_WORDS: [&str; 23] = [
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "TcpStream",
    "TcpListener",
    "mio",
    "Instant",
    "SystemTime",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "static mut",
    "thread_local",
    "OnceLock",
    "LazyLock",
    "RandomState",
    "println!",
    "eprintln!",
    "HashMap::new",
    "HashSet::new",
    "HashMap::with_capacity",
    "HashSet::with_capacity",
];

fn is_pure(source: &Source) -> bool {
    PURE.iter()
        .any(|layer| source.is_in(&format!("src/{layer}/")))
}

/// Sockets, clocks, threads, globals and unseeded maps in a pure layer.
pub fn purity(source: &Source) -> Vec<String> {
    if !is_pure(source) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for word in IMPURE_WORDS {
        for at in find_prefixes(&source.product, word) {
            found.push(format!("{}: `{word}` in a pure layer", source.place(at)));
        }
    }
    for (map, parameters) in [("HashMap<", 3), ("HashSet<", 2)] {
        for at in find_words(&source.product, map) {
            if count_parameters(&source.product[at + map.len()..]) < parameters {
                let place = source.place(at);
                found.push(format!("{place}: `{map}…>` without a seeded hasher"));
            }
        }
    }
    found
}

/// Like `find_words`, but the word may go on, as `std::net::Tcp` does in `std::net::TcpStream`.
fn find_prefixes(code: &str, word: &str) -> Vec<usize> {
    if word.ends_with("Tcp") || word.ends_with("Udp") {
        return code.match_indices(word).map(|(at, _)| at).collect();
    }
    find_words(code, word)
}

/// Of a list of type parameters, from behind its `<`.
fn count_parameters(code: &str) -> usize {
    let (mut depth, mut count) = (0, 1);
    for byte in code.bytes() {
        match byte {
            b'<' | b'(' | b'[' => depth += 1,
            b'>' if depth == 0 => break,
            b'>' | b')' | b']' => depth -= 1,
            b',' if depth == 0 => count += 1,
            _ => {}
        }
    }
    count
}

/// Below `node` nothing is logged: reasons are returned, numbers counted.
pub fn silence(source: &Source) -> Vec<String> {
    if !is_pure(source) || source.is_in("src/node/") {
        return Vec::new();
    }
    let macros = ["error!", "warn!", "info!", "debug!", "trace!"];
    let bare = macros
        .iter()
        .flat_map(|word| find_words(&source.product, word))
        .filter(|at| !source.product[..*at].ends_with("::"));
    let found = find_words(&source.product, "log::").into_iter().chain(bare);
    found
        .map(|at| format!("{}: logging below `node`", source.place(at)))
        .collect()
}

/// `unsafe` only in `src/run/`, and each with its argument in the comment above.
pub fn unsafety(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for at in find_words(&source.code, "unsafe") {
        let place = source.place(at);
        if !source.is_in("src/run/") {
            found.push(format!("{place}: `unsafe` outside src/run/"));
        } else if !is_argued(&source.text, line_of(&source.text, at)) {
            found.push(format!("{place}: `unsafe` without a `// SAFETY:` comment"));
        }
    }
    found
}

/// Whether the comment above the statement or item around `line` holds the argument: the lines of
/// the statement before it are skipped, and so are attributes.
fn is_argued(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut above = lines[..line - 1].iter().rev();
    let opens = |line: &str| line.ends_with(['=', '(', ',']) || line.starts_with("#[");
    let nearest = above.by_ref().find(|line| !opens(line));
    let comment: Vec<&str> = nearest
        .into_iter()
        .chain(above)
        .take_while(|line| line.starts_with("//"))
        .copied()
        .collect();
    let is_argument = |line: &&str| line.starts_with("// SAFETY:") || line.contains("# Safety");
    comment.iter().any(is_argument)
}

/// A file has one subject, a function one purpose; both end early. Tests are no exception: who
/// changes the code has to read them too.
pub fn sizes(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let path = &source.path;
        found.push(format!("{path}:1: {lines} lines of {FILE_LINES_MAX}"));
    }
    for (at, lines) in functions(&source.code) {
        if lines > FUNCTION_LINES_MAX {
            let place = source.place(at);
            found.push(format!(
                "{place}: a function of {lines} lines of {FUNCTION_LINES_MAX}"
            ));
        }
    }
    found
}

/// Where each function with a body begins, and its lines from `fn` to the closing brace.
fn functions(code: &str) -> Vec<(usize, usize)> {
    let bytes = code.as_bytes();
    let named = |at: &usize| {
        let rest = code[at + 2..].trim_start();
        rest.bytes().next().is_some_and(is_word)
    };
    let starts = find_words(code, "fn").into_iter().filter(named);
    starts
        .filter_map(|start| {
            let mut depth = 0;
            for (at, byte) in bytes.iter().enumerate().skip(start) {
                match byte {
                    b'(' | b'[' => depth += 1,
                    b')' | b']' => depth -= 1,
                    b';' if depth == 0 => return None,
                    b'{' if depth == 0 => {
                        let body = &code[start..end_of_braces(code, at)];
                        return Some((start, body.lines().count()));
                    }
                    _ => {}
                }
            }
            None
        })
        .collect()
}

/// A file says first what it owns.
pub fn heads(source: &Source) -> Vec<String> {
    let path = &source.path;
    match source.text.starts_with("//!") {
        true => Vec::new(),
        false => vec![format!("{path}:1: no `//!` says what this file is")],
    }
}

/// What is fine while one works and not afterwards. `expect` states an invariant; `unwrap` does not.
pub fn leftovers(source: &Source) -> Vec<String> {
    let words = ["#[ignore", "todo!", "unimplemented!", "dbg!"];
    let mut found: Vec<String> = Vec::new();
    for word in words {
        for at in find_words(&source.code, word) {
            found.push(format!("{}: `{word}` is left over", source.place(at)));
        }
    }
    for at in find_words(&source.product, ".unwrap()") {
        let place = source.place(at);
        found.push(format!("{place}: `unwrap` gives no reason; `expect` does"));
    }
    found
}
