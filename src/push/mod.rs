//! What goes out to others. To the customer's servers: webhooks, the truth they were told, how what
//! waits for them is handed on. To devices: who is registered, notifications, and the providers that
//! carry them. Pure, and without a connection: a request is made here and an answer is read, sending
//! is somebody else's.

pub mod address;
pub mod apns;
pub mod apns_channels;
pub mod apns_payload;
pub mod apns_verdict;
pub mod device;
pub mod entra;
pub mod facts;
pub mod fcm;
pub mod fcm_account;
pub mod fcm_quota;
pub mod fcm_verdict;
pub mod geo;
pub mod key_vault;
pub mod lanes;
pub mod note;
pub mod provider;
pub mod registration;
pub mod token;
pub mod token_key;
#[cfg(test)]
mod provider_kit;
pub mod truth;
pub mod vault;
pub mod verdict;
pub mod webhook;
pub mod webpush;
pub mod webpush_crypt;
pub mod webpush_verdict;
