//! What every layer above may rely on: time, chance, ids, names, byte queues, limits, endings and
//! counts. Pure: nothing here opens a socket, reads a clock or holds a global.

pub mod addresses;
pub mod backoff;
pub mod by_slot;
pub mod bytes;
pub mod close;
pub mod counters;
pub mod dice;
pub mod files;
pub mod histogram;
pub mod history_rule;
pub mod ids;
pub mod limits;
pub mod names;
pub mod networks;
pub mod now;
pub mod quota;
pub mod tls_rules;
pub mod uuid;
pub mod wheel;
