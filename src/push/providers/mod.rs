//! The services that carry notifications to devices. Each is one pure type: a request out of a note and
//! an address, a ruling out of an answer. None knows of connections, queues or retries.

pub mod address;
pub mod apns;
pub mod azure;
pub mod credential;
pub mod fcm;
#[cfg(test)]
mod kit;
pub mod note;
pub mod provider;
pub mod verdict;
pub mod webpush;
