//! On what terms a worker publishes, and how they are written on the bus. It does not know who keeps
//! them.

use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// On what terms events are published: all of them hold, or none is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Each event counts once against each of these.
    pub rates: Vec<Rate>,
    /// A request that is good for one time.
    pub once: Option<Once>,
}

/// A request that is not to be taken twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    pub signature: String,
    /// When nobody would take it any more: seconds since 1970.
    pub until: i64,
}

/// How often something may happen on the whole server. Who states the same rate shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    pub name: String,
    pub per_second: u32,
}

impl Terms {
    pub(super) fn write(&self, to: &mut Writer) {
        to.list(&self.rates, |to, rate| rate.write(to));
        to.option(self.once.as_ref(), |to, once| {
            to.text(&once.signature).u64(once.until.cast_unsigned());
        });
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Terms, Garbled> {
        Ok(Terms {
            rates: from.list(Rate::read)?,
            once: from.option(|from| {
                Ok(Once {
                    signature: from.text()?.to_owned(),
                    until: from.u64()?.cast_signed(),
                })
            })?,
        })
    }
}

impl Rate {
    pub(super) fn write(&self, to: &mut Writer) {
        to.text(&self.name).u32(self.per_second);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Rate, Garbled> {
        Ok(Rate {
            name: from.text()?.to_owned(),
            per_second: from.u32()?,
        })
    }
}
