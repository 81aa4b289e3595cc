//! Notifications on their way to devices: what is queued, when each is due, how often it was tried,
//! and how fast each credential may be used. Does not know who is asked, nor over what. The store
//! keeps every delivery that was accepted; here is what is claimed from it.

pub mod breaker;
pub mod guard;
pub mod jobs;
#[cfg(test)]
pub mod kit;
pub mod outcome;
pub mod pace;
pub mod queue;
