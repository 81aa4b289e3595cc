//! The numbers of the whole server, as the master hands them to a reactor that was asked for them.
//! Says what travels; what the counters mean is in `base/counters`.

use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// All processes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub started_unix_ms: u64,
    pub uptime_ms: u64,
    /// One for each place, whoever holds it now.
    pub processes: Vec<ProcessNumbers>,
}

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Master,
    Switchboard,
    Courier,
    /// By its number.
    Worker(u32),
}

/// One process, with what its dead predecessors counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessNumbers {
    pub whose: Whose,
    /// It runs, and answered.
    pub up: bool,
    /// How often it was replaced.
    pub restarts: u64,
    /// In RAM; `None` where the system does not tell.
    pub memory_bytes: Option<u64>,
    /// Of those who live.
    pub cpu_ms: Option<u64>,
    /// `Counters::values`.
    pub counters: Vec<u64>,
}

impl Numbers {
    pub(super) fn write(&self, to: &mut Writer) {
        to.u64(self.started_unix_ms).u64(self.uptime_ms);
        to.list(&self.processes, |to, process| process.write(to));
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Numbers, Garbled> {
        Ok(Numbers {
            started_unix_ms: from.u64()?,
            uptime_ms: from.u64()?,
            processes: from.list(ProcessNumbers::read)?,
        })
    }
}

impl ProcessNumbers {
    fn write(&self, to: &mut Writer) {
        let (kind, number) = match self.whose {
            Whose::Master => (0, 0),
            Whose::Switchboard => (1, 0),
            Whose::Worker(number) => (2, number),
            Whose::Courier => (3, 0),
        };
        to.u8(kind)
            .u32(number)
            .u8(u8::from(self.up))
            .u64(self.restarts);
        for number in [self.memory_bytes, self.cpu_ms] {
            to.option(number, |to, number| {
                to.u64(number);
            });
        }
        to.list(&self.counters, |to, value| {
            to.u64(*value);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<ProcessNumbers, Garbled> {
        let whose = match (from.u8()?, from.u32()?) {
            (0, _) => Whose::Master,
            (1, _) => Whose::Switchboard,
            (2, number) => Whose::Worker(number),
            (3, _) => Whose::Courier,
            _ => return Err(Garbled),
        };
        Ok(ProcessNumbers {
            whose,
            up: from.u8()? != 0,
            restarts: from.u64()?,
            memory_bytes: from.option(Reader::u64)?,
            cpu_ms: from.option(Reader::u64)?,
            counters: from.list(Reader::u64)?,
        })
    }
}
