//! `bench/COUNTS.md`: what each path took when it was last written down, with which compiler, and why it
//! took more than before.

#![allow(dead_code)] // its tests stand in tests/counts.rs, and what measures uses the rest

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

/// A count that is higher than this, in percent of what is written down, has grown.
const ALLOWED: u64 = 105;
const HEAD: &str = "# Instructions

What the hot paths take, counted by Callgrind ([README.md](README.md#instructions)); written by
`--bless`, not by hand. The check in `cargo test` is about the first column: unoptimized instructions
are many, but grow with the work. The second is what a server takes.
";
const TABLE: &str = "
| path | tests | release | one operation |
|---|---:|---:|---|
";
const GROWN: &str = "\n## What grew, and why\n\n";

/// Which build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    Tests,
    Release,
}

impl Column {
    const ALL: [Column; 2] = [Column::Tests, Column::Release];

    fn word(self) -> &'static str {
        match self {
            Column::Tests => "tests",
            Column::Release => "release",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    name: String,
    operation: String,
    counts: BTreeMap<Column, u64>,
}

/// See the file's head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    compilers: BTreeMap<Column, String>,
    rows: Vec<Row>,
    /// Lines of what grew, the latest last.
    grown: Vec<String>,
}

/// What the comparison says.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The counts are of another compiler; they say nothing about these.
    Elsewhere { theirs: String, ours: String },
    /// A line for each path; whether all may stay.
    Compared { lines: Vec<String>, is_fine: bool },
}

impl Verdict {
    /// What cannot be compared is no failure.
    pub fn into_result(self) -> Result<(), String> {
        match self {
            Verdict::Compared { is_fine: false, .. } => Err(
                "a path takes more than a twentieth more than bench/COUNTS.md says, or the paths are others: \
                 undo it, or write it down with the reason: bench/README.md, Instructions"
                    .into(),
            ),
            _ => Ok(()),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Elsewhere { theirs, ours } => writeln!(
                f,
                "not compared: bench/COUNTS.md is of {theirs}, this is {ours}"
            ),
            Verdict::Compared { lines, .. } => {
                lines.iter().try_for_each(|line| writeln!(f, "{line}"))
            }
        }
    }
}

impl Table {
    /// Of the file's text; an empty one has no rows.
    pub fn parse(text: &str) -> Result<Table, String> {
        let mut table = Table::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("- `") {
                table.grown.push(format!("- `{rest}"));
            } else if let Some((column, compiler)) = Column::ALL.iter().find_map(|column| {
                let compiler = line.strip_prefix(&format!("* {}: ", column.word()))?;
                Some((*column, compiler))
            }) {
                table.compilers.insert(column, compiler.to_string());
            } else if line.starts_with("| `") {
                let row = parse_row(line).ok_or_else(|| format!("bench/COUNTS.md: {line}"))?;
                table.rows.push(row);
            }
        }
        Ok(table)
    }

    /// Of counts by name.
    pub fn compare(&self, column: Column, ours: &str, counts: &[(&str, u64)]) -> Verdict {
        if let Some(theirs) = self.compilers.get(&column).filter(|it| *it != ours) {
            return Verdict::Elsewhere {
                theirs: theirs.clone(),
                ours: ours.to_string(),
            };
        }
        let mut is_fine = true;
        let mut lines = Vec::new();
        for (name, count) in counts {
            let before = self.count(name, column);
            let (is_within, remark) = match before {
                None => (false, "is not written down".to_string()),
                Some(before) if has_grown(before, *count) => {
                    (false, format!("was {}", commas(before)))
                }
                Some(before) if has_grown(*count, before) => {
                    (true, format!("was {}: less", commas(before)))
                }
                Some(before) => (true, format!("was {}", commas(before))),
            };
            is_fine &= is_within;
            let sign = if is_within { ' ' } else { '!' };
            lines.push(format!("{sign} {name:26} {:>12} {remark}", commas(*count)));
        }
        for row in &self.rows {
            if counts.iter().all(|(name, _)| *name != row.name) {
                is_fine = false;
                lines.push(format!(
                    "! {:26} is written down, but not counted",
                    row.name
                ));
            }
        }
        Verdict::Compared { lines, is_fine }
    }

    /// Takes new counts, by name and what an operation is. What grew wants a reason.
    pub fn bless(
        &mut self,
        column: Column,
        compiler: &str,
        counts: &[(&str, &str, u64)],
        why: Option<&str>,
    ) -> Result<(), String> {
        let is_same = self.compilers.get(&column).is_none_or(|it| it == compiler);
        let mut grown = Vec::new();
        for (name, _, count) in counts {
            let before = self.count(name, column);
            if let Some(before) = before.filter(|it| is_same && has_grown(*it, *count)) {
                let why = why.filter(|it| !it.trim().is_empty());
                let why = why.ok_or_else(|| format!("{name} grew: --bless 'why'"))?;
                let (before, now) = (commas(before), commas(*count));
                grown.push(format!(
                    "- `{name}` ({}): {before} → {now}: {}",
                    column.word(),
                    why.trim()
                ));
            }
        }
        let rows = counts.iter().map(|(name, operation, count)| {
            let before = self.rows.iter().find(|it| it.name == *name);
            let mut counts = before.map(|it| it.counts.clone()).unwrap_or_default();
            counts.insert(column, *count);
            let (name, operation) = (name.to_string(), operation.to_string());
            Row {
                name,
                operation,
                counts,
            }
        });
        self.rows = rows.collect();
        self.grown.append(&mut grown);
        self.compilers.insert(column, compiler.to_string());
        Ok(())
    }

    fn count(&self, name: &str, column: Column) -> Option<u64> {
        let row = self.rows.iter().find(|it| it.name == name)?;
        row.counts.get(&column).copied()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{HEAD}")?;
        for (column, compiler) in &self.compilers {
            writeln!(f, "* {}: {compiler}", column.word())?;
        }
        write!(f, "{TABLE}")?;
        for row in &self.rows {
            let count = |column| {
                row.counts
                    .get(&column)
                    .map(|it| commas(*it))
                    .unwrap_or_default()
            };
            let [tests, release] = Column::ALL.map(count);
            writeln!(
                f,
                "| `{}` | {tests} | {release} | {} |",
                row.name, row.operation
            )?;
        }
        if !self.grown.is_empty() {
            writeln!(f, "{GROWN}{}", self.grown.join("\n"))?;
        }
        Ok(())
    }
}

fn parse_row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line
        .strip_prefix('|')?
        .strip_suffix('|')?
        .split('|')
        .map(str::trim)
        .collect();
    let [name, tests, release, operation] = cells[..] else {
        return None;
    };
    let mut counts = BTreeMap::new();
    for (column, cell) in Column::ALL.into_iter().zip([tests, release]) {
        if !cell.is_empty() {
            counts.insert(column, cell.replace(',', "").parse().ok()?);
        }
    }
    Some(Row {
        name: name.strip_prefix('`')?.strip_suffix('`')?.to_string(),
        operation: operation.to_string(),
        counts,
    })
}

fn has_grown(before: u64, now: u64) -> bool {
    now * 100 > before * ALLOWED
}

/// 12,345
fn commas(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
