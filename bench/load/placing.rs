//! Where the server's ends of our connections are: which of its processes the
//! kernel has given each to. What crosses between workers costs more than what
//! stays in one, so a figure about either has to say which it was.

use std::collections::BTreeMap;

use crate::process;
use crate::report::Report;
use crate::target::Target;
use crate::wire::Wire;

/// The process that holds each connection, where that can be found out.
pub fn holders(wires: &[Wire], target: &Target) -> Vec<Option<u32>> {
    let known = process::holders_of(&target.processes(), target.address.port());
    wires
        .iter()
        .map(|wire| known.get(&wire.address().ok()?).copied())
        .collect()
}

/// Tells over how many processes the connections are spread, and how evenly.
pub fn add_spread(holders: &[Option<u32>], report: &mut Report) {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for pid in holders.iter().flatten() {
        *counts.entry(*pid).or_default() += 1;
    }
    let share = |count: usize| count as f64 / holders.len().max(1) as f64 * 100.0;
    let most = counts.values().copied().max().unwrap_or(0);
    report.add("processes with subscribers", "", counts.len() as f64);
    report.add("subscribers of the fullest", "%", share(most));
}
