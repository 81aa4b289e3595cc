//! One scenario against several servers in turn, round after round, so that
//! whatever else the machine does falls on all of them alike.
//!
//! Every run starts its server afresh. Every other round goes through the
//! servers backwards. The ratio is taken within a round, against the first
//! server, and its median over the rounds is what counts.

use serde_json::{Value, json};

use crate::Fallible;
use crate::meter::OTHERS;
use crate::options::CompareOptions;
use crate::process;
use crate::report::{Report, figure};

/// The runs of one server, one report per round.
struct Series {
    server: String,
    reports: Vec<Report>,
}

/// Median, lowest and highest of some values.
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

pub fn run(options: &CompareOptions) -> Fallible<()> {
    let mut series: Vec<Series> = options
        .server
        .iter()
        .map(|server| Series {
            server: server.clone(),
            reports: Vec::new(),
        })
        .collect();
    let mut noisy = 0;
    let mut round = 0;
    while round < options.rounds {
        let mut order: Vec<usize> = (0..series.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        let mut found = Vec::new();
        for index in order {
            let server = &series[index].server;
            eprintln!("round {} of {}: {server}", round + 1, options.rounds);
            found.push((index, crate::run(&options.scenario, Some(server))?));
        }
        if noisy < 3 * options.rounds && found.iter().any(|(_, report)| is_noisy(report, options)) {
            noisy += 1;
            eprintln!("the machine was busy with something else: the round is repeated");
            continue;
        }
        found
            .into_iter()
            .for_each(|(index, report)| series[index].reports.push(report));
        round += 1;
    }
    let scenario = options.scenario.describe();
    if options.json {
        println!("{:#}", to_json(&scenario, &series));
    } else {
        print_table(&scenario, &series);
    }
    Ok(())
}

fn is_noisy(report: &Report, options: &CompareOptions) -> bool {
    let others = report.metrics.iter().find(|metric| metric.name == OTHERS);
    let (Some(others), Some(limit)) = (others, options.quiet) else {
        return false;
    };
    others.value > limit
}

fn print_table(scenario: &str, series: &[Series]) {
    let rounds = series[0].reports.len();
    println!("`{scenario}`, {rounds} rounds in turn: median (lowest to highest)\n");
    print!("| what |");
    for (index, one) in series.iter().enumerate() {
        print!(" {} |", one.server);
        if index > 0 {
            print!(" ratio |");
        }
    }
    print!("\n|---|");
    (0..2 * series.len() - 1).for_each(|_| print!("---:|"));
    println!();
    for (row, metric) in series[0].reports[0].metrics.iter().enumerate() {
        print!("| {}, {} |", metric.name, metric.unit);
        for (index, one) in series.iter().enumerate() {
            let Spread { median, low, high } = spread(&one.values(row));
            print!(
                " {} ({} to {}) |",
                figure(median),
                figure(low),
                figure(high)
            );
            if index > 0 && matches!(metric.unit, "cores" | "%") {
                print!(" |");
            } else if index > 0 {
                let Spread { median, low, high } = spread(&ratios(&series[0], one, row));
                print!(" {median:.2} ({low:.2} to {high:.2}) |");
            }
        }
        println!();
    }
    println!("\n{}", process::describe_machine());
}

fn to_json(scenario: &str, series: &[Series]) -> Value {
    let servers =
        series.iter().map(|one| {
            let metrics = one.reports[0].metrics.iter().enumerate().map(|(row, metric)| {
            let values = one.values(row);
            let Spread { median, low, high } = spread(&values);
            let ratio = spread(&ratios(&series[0], one, row));
            json!({
                "name": metric.name, "unit": metric.unit, "values": values,
                "median": median, "lowest": low, "highest": high,
                "ratio": { "median": ratio.median, "lowest": ratio.low, "highest": ratio.high },
            })
        });
            json!({ "server": one.server, "metrics": metrics.collect::<Vec<_>>() })
        });
    json!({
        "scenario": scenario,
        "rounds": series[0].reports.len(),
        "machine": process::describe_machine(),
        "servers": servers.collect::<Vec<_>>(),
    })
}

impl Series {
    fn values(&self, row: usize) -> Vec<f64> {
        self.reports
            .iter()
            .map(|report| report.metrics[row].value)
            .collect()
    }
}

fn ratios(base: &Series, other: &Series, row: usize) -> Vec<f64> {
    let pairs = base.values(row).into_iter().zip(other.values(row));
    pairs.map(|(base, other)| other / base).collect()
}

fn spread(values: &[f64]) -> Spread {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    };
    Spread {
        median,
        low: sorted[0],
        high: sorted[sorted.len() - 1],
    }
}
