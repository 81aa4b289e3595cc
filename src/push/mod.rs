//! What the customer's servers are told: webhooks, the truth they were told, how what waits for them
//! is handed on. And how the tokens of devices are kept. Pure, and without a protocol: a body is
//! bytes, a connection is somebody else's.

pub mod device;
pub mod entra;
pub mod facts;
pub mod geo;
pub mod key_vault;
pub mod lanes;
pub mod registration;
pub mod token;
pub mod token_key;
pub mod truth;
pub mod vault;
pub mod webhook;
