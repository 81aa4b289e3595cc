//! What the kernel knows about processes, read from /proc: processor time,
//! memory, children.
//!
//! Everything is read as text, so that no call into the C library is needed.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;

use crate::Fallible;

/// Length of a clock tick in /proc/PID/stat: the kernel reports hundredths of
/// a second to programs, whatever it counts in itself.
const TICK_NANOS: u64 = 10_000_000;

/// Processor time of a set of processes, all their threads included.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// From the scheduler's own account, exact to the nanosecond.
    pub nanos: u64,
    /// From the ticks of /proc/PID/stat: coarse, but split.
    pub user_nanos: u64,
    pub system_nanos: u64,
}

impl Cpu {
    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            nanos: self.nanos.saturating_sub(earlier.nanos),
            user_nanos: self.user_nanos.saturating_sub(earlier.user_nanos),
            system_nanos: self.system_nanos.saturating_sub(earlier.system_nanos),
        }
    }
}

/// Processor time used so far by `pids`.
pub fn cpu_of(pids: &[u32]) -> Cpu {
    let mut sum = Cpu::default();
    for pid in pids {
        sum.nanos += scheduled_nanos(*pid);
        if let Some(fields) = stat_fields(*pid) {
            let ticks = |index: usize| fields.get(index).and_then(|text| text.parse().ok());
            sum.user_nanos += ticks(11).unwrap_or(0u64) * TICK_NANOS;
            sum.system_nanos += ticks(12).unwrap_or(0u64) * TICK_NANOS;
        }
    }
    sum
}

/// Time all processors together were not idle since boot.
pub fn machine_busy_nanos() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|t| t.parse().unwrap_or(0))
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; the two guest
    // columns are already part of user and nice.
    let busy = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| ticks.get(*index))
        .sum::<u64>();
    busy * TICK_NANOS
}

/// `root` and everything that descends from it.
pub fn family_of(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat_fields(pid)?.get(1)?.parse().ok()?)))
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let children = parents
            .iter()
            .filter(|(_, of)| *of == parent)
            .map(|(pid, _)| *pid);
        family.extend(children);
        next += 1;
    }
    family
}

/// Proportional share of memory of all `pids`, in bytes: a page shared by two
/// processes counts half for each.
pub fn memory_of(pids: &[u32]) -> Fallible<u64> {
    let mut sum = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        sum += kilobytes.ok_or_else(|| format!("{path} has no Pss line"))? * 1024;
    }
    Ok(sum)
}

/// Which of `pids` holds the server's end of each IPv4 connection to `port`, by the client's address.
pub fn holders_of(pids: &[u32], port: u16) -> HashMap<SocketAddr, u32> {
    let mut by_inode = HashMap::new();
    for pid in pids {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        for link in descriptors.into_iter().flatten().flatten() {
            let name = fs::read_link(link.path()).unwrap_or_default();
            let inode = name.to_str().and_then(|name| name.strip_prefix("socket:["));
            if let Some(inode) = inode.and_then(|rest| rest.strip_suffix(']')) {
                by_inode.insert(inode.to_owned(), *pid);
            }
        }
    }
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace());
    rows.filter_map(|mut row| {
        let (local, remote) = (row.nth(1)?, row.next()?);
        let inode = row.nth(6)?;
        let holder = by_inode.get(inode)?;
        (kernel_address(local)?.port() == port).then_some((kernel_address(remote)?, *holder))
    })
    .collect()
}

/// An address as /proc/net/tcp writes it: the IPv4 address as the number that
/// it is in memory, then the port.
fn kernel_address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let host = u32::from_str_radix(host, 16).ok()?.to_ne_bytes();
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::from((host, port)))
}

/// Kernel memory that connections use, in bytes: pages charged to TCP, and the
/// slab caches. Machine-wide, hence only an indication on a shared machine.
pub fn kernel_memory() -> (u64, u64) {
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let pages = sockets
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok())
        .unwrap_or(0);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let slab = memory
        .lines()
        .find_map(|line| line.strip_prefix("Slab:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    (pages * 4096, slab * 1024)
}

/// How many descriptors a process started from here may open.
pub fn descriptor_limit() -> u64 {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(1024)
}

/// One line about the machine and the commit, for a report.
pub fn describe_machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split(':').nth(1))
        .unwrap_or("unknown")
        .trim();
    let count = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let commit = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let commit = commit.unwrap_or_else(|| "unknown".into());
    format!(
        "{count} x {model}, Linux {}, commit {commit}",
        kernel.trim()
    )
}

/// The fields of /proc/PID/stat after the name, which itself may hold spaces:
/// state, parent, … user ticks (index 11), system ticks (index 12).
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn scheduled_nanos(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let mut sum = 0;
    for thread in threads {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        sum += text
            .split_whitespace()
            .next()
            .and_then(|t| t.parse::<u64>().ok())
            .unwrap_or(0);
    }
    sum
}
