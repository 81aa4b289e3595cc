//! Whether processes live, and how long tests are patient.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::fs;
use std::time::Duration;

/// However slow the machine is.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often something is killed: as often as the variable CRASH_ROUNDS says, or this often.
pub fn crash_rounds(usually: usize) -> usize {
    let wanted = std::env::var("CRASH_ROUNDS").ok();
    wanted.map_or(usually, |it| it.parse().expect("CRASH_ROUNDS is a number"))
}

/// Whether a process lives; one that ended and was not waited for counts as dead.
pub fn is_alive(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses.
    text.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
