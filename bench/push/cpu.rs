//! Processor time of a process's threads, as the scheduler counts it (/proc/PID/task/*/schedstat).

use std::fs;

use crate::Fallible;

/// Of one process, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    pub all: u64,
    /// The thread that writes the database.
    pub store: u64,
}

impl Cpu {
    pub fn of(pid: u32) -> Fallible<Cpu> {
        let mut cpu = Cpu::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = thread?.path();
            let text = fs::read_to_string(path.join("schedstat"))?;
            let nanos: u64 = text.split_whitespace().next().ok_or("no time")?.parse()?;
            cpu.all += nanos;
            if fs::read_to_string(path.join("comm"))?.trim() == "store" {
                cpu.store += nanos;
            }
        }
        Ok(cpu)
    }

    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            all: self.all - earlier.all,
            store: self.store - earlier.store,
        }
    }
}
