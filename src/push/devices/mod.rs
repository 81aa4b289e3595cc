//! Registered devices: what is known of each, where it is, and its token, which only the vault sees in
//! clear. Owns the rules, keeps no device: that is the store's.

pub mod census;
pub mod device;
pub mod entra;
pub mod geo;
pub mod jobs;
pub mod key_vault;
pub mod region;
pub mod registration;
pub mod token;
pub mod token_key;
pub mod vault;
