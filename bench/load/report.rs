//! What a scenario found: named numbers with units, printed as a Markdown
//! table or as JSON.

use serde_json::{Value, json};

use crate::process;

/// One number; `name` says what it is, `unit` what it counts in.
#[derive(Clone)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
}

/// Everything one run of one scenario found against one server.
pub struct Report {
    pub scenario: String,
    pub server: String,
    pub metrics: Vec<Metric>,
}

impl Report {
    pub fn new(scenario: String) -> Report {
        Report {
            scenario,
            server: String::new(),
            metrics: Vec::new(),
        }
    }

    pub fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.metrics.push(Metric { name, unit, value });
    }

    pub fn print(&self, as_json: bool) {
        if as_json {
            println!("{:#}", self.to_json());
            return;
        }
        println!("{}: `{}`\n", self.server, self.scenario);
        println!("| what | value | unit |\n|---|---:|---|");
        for metric in &self.metrics {
            println!(
                "| {} | {} | {} |",
                metric.name,
                figure(metric.value),
                metric.unit
            );
        }
        println!("\n{}", process::describe_machine());
    }

    fn to_json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "server": self.server,
            "machine": process::describe_machine(),
            "metrics": self.metrics.iter().map(|metric| json!({
                "name": metric.name, "unit": metric.unit, "value": metric.value,
            })).collect::<Vec<_>>(),
        })
    }
}

/// A number with three significant digits, and no false precision.
pub fn figure(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, character) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(character);
    }
    grouped + fraction
}
