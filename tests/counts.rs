//! What stands between a count of instructions that grew and the next commit (`bench/instructions`).

#[path = "../bench/instructions/table.rs"]
mod table;

use table::{Column, Table, Verdict};

const OURS: &str = "rustc 1.95.0, x86_64-unknown-linux-gnu";

/// A table with one path.
fn table(count: u64) -> Table {
    let mut table = Table::default();
    let counts = [("echo", "a message", count)];
    table
        .bless(Column::Tests, OURS, &counts, None)
        .expect("nothing grew");
    table
}

fn is_fine(table: &Table, counts: &[(&str, u64)]) -> bool {
    table
        .compare(Column::Tests, OURS, counts)
        .into_result()
        .is_ok()
}

#[test]
fn a_twentieth_is_allowed_and_no_more() {
    let table = table(12_000);
    assert!(is_fine(&table, &[("echo", 12_600)]));
    assert!(!is_fine(&table, &[("echo", 12_601)]));
    assert!(is_fine(&table, &[("echo", 1)]));
}

#[test]
fn paths_that_came_or_went_are_seen() {
    let table = table(12_000);
    assert!(!is_fine(&table, &[("echo", 12_000), ("new", 1)]));
    assert!(!is_fine(&table, &[]));
}

#[test]
fn what_another_compiler_made_is_not_compared() {
    let verdict = table(1).compare(Column::Tests, "rustc 2.0.0, vax", &[("echo", 9)]);
    let theirs = OURS.to_string();
    let ours = "rustc 2.0.0, vax".to_string();
    assert_eq!(verdict, Verdict::Elsewhere { theirs, ours });
}

#[test]
fn what_grew_is_written_down_with_a_reason_or_not_at_all() {
    let mut table = table(1_000_000);
    let grown = [("echo", "a message", 1_100_000)];
    let refused = table.bless(Column::Tests, OURS, &grown, Some(" "));
    assert_eq!(refused, Err("echo grew: --bless 'why'".into()));
    assert!(!is_fine(&table, &[("echo", 1_100_000)]));
    let done = table.bless(Column::Tests, OURS, &grown, Some("it says goodbye"));
    assert_eq!(done, Ok(()));
    assert!(is_fine(&table, &[("echo", 1_100_000)]));
    let line = "- `echo` (tests): 1,000,000 → 1,100,000: it says goodbye\n";
    assert!(table.to_string().ends_with(line), "{table}");
}

#[test]
fn the_file_is_read_as_it_was_written() {
    let mut written = table(999);
    let counts = [("echo", "a message", 1_234), ("push", "a call", 56)];
    written
        .bless(Column::Release, OURS, &counts, None)
        .expect("nothing grew");
    written
        .bless(
            Column::Release,
            OURS,
            &[counts[0], ("push", "a call", 60)],
            Some("why"),
        )
        .expect("a reason");
    assert_eq!(Table::parse(&written.to_string()), Ok(written));
    assert!(Table::parse("| `echo` | many | | a message |").is_err());
}
