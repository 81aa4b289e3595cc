//! Medians and spreads as Markdown.

use std::collections::BTreeMap;

/// Figures by row and column, each of several rounds.
#[derive(Default)]
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<String>,
    cells: BTreeMap<(String, &'static str), Vec<f64>>,
}

impl Table {
    pub fn add(&mut self, row: &str, column: &'static str, figure: f64) {
        if !self.columns.contains(&column) {
            self.columns.push(column);
        }
        if !self.rows.iter().any(|it| it == row) {
            self.rows.push(row.to_string());
        }
        let cell = self.cells.entry((row.to_string(), column)).or_default();
        cell.push(figure);
    }

    pub fn print(&self) {
        println!("| | {} |", self.columns.join(" | "));
        println!("|---|{}", "---:|".repeat(self.columns.len()));
        for row in &self.rows {
            let cells = self.columns.iter();
            let cells = cells.map(|column| match self.cells.get(&(row.clone(), *column)) {
                Some(figures) => show(figures),
                None => String::new(),
            });
            println!("| {row} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }
}

/// Median, lowest and highest.
fn show(figures: &[f64]) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    let median = sorted[sorted.len() / 2];
    format!("{} ({}–{})", digits(median), digits(low), digits(high))
}

fn digits(figure: f64) -> String {
    match figure {
        0.0..10.0 => format!("{figure:.2}"),
        10.0..1000.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
