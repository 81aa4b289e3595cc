//! How many instructions the hot paths take, counted by Callgrind: the same on every run, whatever else
//! the machine does. Nodes are driven as the reactor drives them, without sockets; only what they do
//! themselves is counted. `bench/COUNTS.md` holds the counts of the commit. Run by `cargo test` against one
//! of its columns, and by `cargo bench --bench instructions` against the other; a count that grew by more
//! than a twentieth fails. Links what it measures.

mod callgrind;
mod counted;
mod paths;
mod sending;
mod site;
mod table;
mod world;

#[path = "../../tests/node/apps.rs"]
mod apps;
#[path = "../../tests/node/hand.rs"]
mod hand;
#[path = "../../tests/node/sender.rs"]
mod sender;

use std::process::ExitCode;

use paths::{PATHS, Path};
use table::{Column, Table};

/// The word behind which a child finds the path it is to take.
const ONE: &str = "--one";
/// What a count that grew is written down with.
const BLESS: &str = "--bless";
const USAGE: &str = "cargo bench --bench instructions             counts, and compares with bench/COUNTS.md
cargo bench --bench instructions -- --bless 'why'     writes them there, with the reason if some grew
cargo test --bench instructions [-- --bless 'why']    the same for the build that tests use";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |word: &str| words.iter().skip_while(|it| *it != word).nth(1).cloned();
    if let Some(name) = after(ONE) {
        let path = PATHS.iter().find(|it| it.name == name);
        (path.expect("a path").walk)();
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|it| it == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match count_all(words.iter().any(|it| it == BLESS), after(BLESS)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn count_all(blesses: bool, why: Option<String>) -> Result<(), String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/COUNTS.md");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut table = Table::parse(&text)?;
    let column = match cfg!(debug_assertions) {
        true => Column::Tests,
        false => Column::Release,
    };
    let counts = callgrind::count(ONE, &PATHS.map(|it| (it.name, it.times)))?;
    let counted: Vec<(&Path, u64)> = PATHS.iter().zip(counts).collect();
    let compiler = callgrind::compiler()?;
    let verdict = table.compare(
        column,
        &compiler,
        &counted
            .iter()
            .map(|(path, count)| (path.name, *count))
            .collect::<Vec<_>>(),
    );
    print!("{verdict}");
    if blesses {
        let operations = counted
            .iter()
            .map(|(path, count)| (path.name, path.operation, *count));
        table.bless(
            column,
            &compiler,
            &operations.collect::<Vec<_>>(),
            why.as_deref(),
        )?;
        return std::fs::write(file, table.to_string()).map_err(|error| format!("{file}: {error}"));
    }
    verdict.into_result()
}
