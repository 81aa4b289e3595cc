//! The house rules, held by tests so that nobody has to argue them in a review. Each rule is a
//! function from a file to what it finds there; each is shown below to find what it is for.

#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/package.rs"]
mod package;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::process::Command;

use source::Source;

type Rule = fn(&Source) -> Vec<String>;

fn sources(folders: &[&str]) -> Vec<Source> {
    let files = folders.iter().flat_map(|folder| package::files(folder));
    let rust = files.filter(|(path, _)| path.ends_with(".rs"));
    let sources: Vec<Source> = rust.map(|(path, text)| Source::new(&path, &text)).collect();
    assert!(sources.len() > 5, "too few files to believe the search");
    sources
}

fn hold(folders: &[&str], rule: Rule) {
    report(sources(folders).iter().flat_map(rule).collect());
}

fn report(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn imports_point_downward() {
    hold(&["src"], layers::check);
}

#[test]
fn pure_layers_depend_on_their_arguments_only() {
    hold(&["src"], rules::purity);
}

#[test]
fn nothing_is_logged_below_the_nodes() {
    hold(&["src"], rules::silence);
}

#[test]
fn unsafe_code_stays_in_run_and_is_argued() {
    hold(&["src", "tests", "bench"], rules::unsafety);
}

#[test]
fn files_and_functions_end_early() {
    hold(&["src", "tests", "bench"], rules::sizes);
}

#[test]
fn every_file_says_what_it_is() {
    hold(&["src", "tests", "bench"], rules::heads);
}

#[test]
fn nothing_unfinished_stays() {
    hold(&["src", "tests", "bench"], rules::leftovers);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let files = package::files("");
    report(
        files
            .iter()
            .flat_map(|(path, text)| package::machine_paths(path, text))
            .collect(),
    );
}

#[test]
fn every_dependency_has_its_reason() {
    let text = std::fs::read_to_string(package::root().join("Cargo.toml")).expect("it is there");
    report(package::unreasoned("Cargo.toml", &text));
}

#[test]
fn no_dependency_brings_a_runtime() {
    let tree = Command::new(env!("CARGO"))
        .args("tree --offline --locked --edges normal --prefix none".split(' '))
        .args(["--format", "{p} {f}"])
        .current_dir(package::root())
        .output()
        .expect("cargo runs");
    let names = String::from_utf8_lossy(&tree.stdout);
    let complaint = String::from_utf8_lossy(&tree.stderr);
    assert!(names.contains("mio v"), "no tree: {complaint}");
    report(package::runtimes(&names));
}

#[test]
fn lock_files_name_no_registry() {
    let files = package::files("tests");
    let locks = files
        .iter()
        .filter(|(path, _)| path.ends_with("package-lock.json"));
    report(
        locks
            .flat_map(|(path, text)| package::registries(path, text))
            .collect(),
    );
}

// Every rule finds what it is for.

fn check(rule: Rule, path: &str, good: &str, bad: &[&str]) {
    let found = rule(&Source::new(path, good));
    assert!(found.is_empty(), "{path}: {found:?} in\n{good}");
    for text in bad {
        let found = rule(&Source::new(path, text));
        assert_eq!(found.len(), 1, "{path}: {found:?} in\n{text}");
    }
}

#[test]
fn an_import_upward_is_found() {
    let check = |path, good, bad| check(layers::check, path, good, bad);
    check(
        "src/wire/http.rs",
        "use crate::base::{ids::ConnId, now::Now};\n// crate::node is above\n",
        &[
            "use crate::node::Node;",
            "use crate::{base::now::Now, net::clock};",
            "fn f() { crate::session::http::go() }",
            "#[cfg(test)] mod tests { use crate::app::apps::App; }",
            "use super::super::node::Node;",
            "use crate::surprise::Thing;",
        ],
    );
    check("src/base/mod.rs", "mod a;", &["use super::net::clock;"]);
    check(
        "src/node/worker/seats.rs",
        "use super::super::Node;\nuse super::Worker;\n#[cfg(test)] mod tests { use super::*; }",
        &["use super::super::super::net::clock;"],
    );
    check(
        "src/session/http.rs",
        "use crate::wire::http;",
        &["use crate::realtime::hub::Hub;", "use crate::app::apps;"],
    );
    check(
        "src/app/client.rs",
        "use crate::realtime::hub::Hub;",
        &["use crate::session::http::Http;"],
    );
    check(
        "src/net/reactor.rs",
        "use crate::node::{Ending, Node, Origin, Output, Peer};",
        &[
            "use crate::node::{Node, worker::Worker};",
            "use crate::node;",
        ],
    );
    check(
        "src/config/load.rs",
        "use crate::app::apps::Apps;\nuse crate::base::limits::Limits;",
        &["use crate::session::http;", "use crate::run::os;"],
    );
    check(
        "src/cli/mod.rs",
        "use lineman::run::exit::Exit;",
        &["use lineman::unknown::Thing;"],
    );
}

#[test]
fn an_impure_word_is_found() {
    check(
        rules::purity,
        "src/realtime/hub.rs",
        "use std::net::SocketAddr;\nlet m: HashMap<A, (B, C), FixedState> = HashMap::default();\n\
         let a = \"Instant\"; // mio\n#[cfg(test)]\nmod tests { fn t() { std::thread::yield_now(); } }",
        &[
            "use std::net::TcpStreams;",
            "use mio::Poll;",
            "let at = Instant::now();",
            "let at = SystemTime::UNIX_EPOCH;",
            "std::thread::yield_now();",
            "static mut COUNT: u32 = 0;",
            "thread_local!(static A: u8 = 0);",
            "let seen = HashMap::new();",
            "let seen = HashSet::with_capacity(4);",
            "names: HashMap<String, (u32, u32)>,",
            "names: HashSet<String>,",
            "let hasher = RandomState::default();",
            "println!(\"here\");",
            "#[cfg(test)]\nmod tests;\nuse mio::Poll;",
        ],
    );
    let net = Source::new("src/net/reactor.rs", "use mio::Poll;");
    assert!(rules::purity(&net).is_empty());
}

#[test]
fn a_log_line_below_node_is_found() {
    check(
        rules::silence,
        "src/app/client.rs",
        "let dialog = catalog::read();",
        &["log::warn!(\"slow\");", "use log::warn;"],
    );
    let node = Source::new("src/node/worker.rs", "log::warn!(\"slow\");");
    assert!(rules::silence(&node).is_empty());
}

#[test]
fn unsafe_code_without_an_argument_or_out_of_place_is_found() {
    check(
        rules::unsafety,
        "src/run/os.rs",
        "// SAFETY: no arguments.\nunsafe { a() };\n\
         // SAFETY: no arguments,\n// really.\nlet b =\n    unsafe { a() };\n\
         /// # Safety\n/// One thread.\n#[inline]\npub unsafe fn c() {}",
        &[
            "// It is fine.\nunsafe { a() };",
            "// SAFETY: of another one.\na();\nunsafe { a() };",
        ],
    );
    check(
        rules::unsafety,
        "src/net/reactor.rs",
        "// no unsafe here",
        &["// SAFETY: none.\nunsafe { a() }"],
    );
}

#[test]
fn a_long_file_and_a_long_function_are_found() {
    let lines = |count| "let a = [0; 2];\n".repeat(count);
    let function = |count| format!("fn f(a: [u8; 3]) -> [u8; 3] {{\n{}}}\n", lines(count));
    check(
        rules::sizes,
        "src/base/now.rs",
        &format!(
            "trait T {{ fn f(&self); }}\n{}\n{}",
            function(58),
            lines(500)
        ),
        &[
            &lines(601),
            &function(59),
            &format!("mod tests {{ {} }}", function(59)),
        ],
    );
}

#[test]
fn a_file_without_a_head_is_found() {
    check(
        rules::heads,
        "src/base/now.rs",
        "//! Time.\n",
        &["/// Time.\n"],
    );
}

#[test]
fn what_was_left_over_is_found() {
    check(
        rules::leftovers,
        "src/base/now.rs",
        "a.expect(\"b\"); a.unwrap_or(1);\n#[cfg(test)]\nmod tests { fn t() { a.unwrap() } }",
        &[
            "let b = a.unwrap();",
            "#[test]\n#[ignore]\nfn f() {}",
            "#[ignore = \"slow\"]",
            "todo!()",
            "fn f() { unimplemented!() }",
            "dbg!(a);",
        ],
    );
}

#[test]
fn literals_and_comments_are_no_code() {
    let text = "a // b\n'c' \"d\\\"e\" /* f\n */ 'g: r#\"h\"i\"# br\"j\" b'\\'' '\\u{6b}' ü";
    let source = Source::new("src/base/now.rs", text);
    let words: Vec<&str> = source.code.split_whitespace().collect();
    assert_eq!(words, ["a", "'g:", "b", "b", "ü"]);
    assert_eq!(source.code.len(), text.len());
    assert_eq!(source.code.lines().count(), 3);
}

#[test]
fn a_path_of_one_machine_is_found() {
    let bad = concat!("cd /wo", "rk/main\nls \"/ro", "ot/x\"\n");
    assert_eq!(package::machine_paths("README.md", bad).len(), 2);
    let good = concat!(
        "a net/wo",
        "rk/x, /tmp/lineman, https://example.org/ho",
        "me/\n"
    );
    assert_eq!(package::machine_paths("README.md", good), [""; 0]);
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let good = "[package]\nname = \"a\"\n[dependencies]\n# All.\nb = \"1\" # because\n";
    assert_eq!(package::unreasoned("Cargo.toml", good), [""; 0]);
    for bad in [
        "[dependencies]\nb = \"1\"\n",
        "[dev-dependencies]\nb = \"1\" #\n",
        "[target.'cfg(unix)'.dependencies]\nb = { version = \"1\" }\n",
        "[dependencies.b]\nversion = \"1\" # because\n",
    ] {
        assert_eq!(package::unreasoned("Cargo.toml", bad).len(), 1, "{bad}");
    }
}

#[test]
fn a_runtime_and_a_registry_are_found() {
    assert_eq!(package::runtimes("lineman v0.1.0\nmio v1.2.0\n"), [""; 0]);
    let traits = "tokio v1.50.0 bytes,default,io-util\ntokio v1.50.0 bytes (*)\n";
    assert_eq!(package::runtimes(traits), [""; 0]);
    for runtime in [
        "tokio v1.50.0 bytes,rt,sync (*)",
        "tokio v1.50.0 net",
        "smol v1",
    ] {
        assert_eq!(package::runtimes(runtime).len(), 1, "{runtime}");
    }
    let good = "\"url\": \"https://github.com/sponsors/a\"";
    assert_eq!(package::registries("package-lock.json", good), [""; 0]);
    let bad = "  \"resolved\": \"https://registry.example/a.tgz\",";
    assert_eq!(package::registries("package-lock.json", bad).len(), 1);
}
