//! Channels and who is in them. The hub is one reactor's view: which of its connections subscribe
//! to what. The registry is the truth over all reactors. Pure, and ignorant of any protocol.

pub mod by_name;
pub mod cache;
pub mod counting;
pub mod history;
pub mod hub;
pub mod members;
pub mod registry;
pub mod replays;
pub mod roster;
pub mod sessions;
pub mod spending;
pub mod watching;
pub mod watchlists;
