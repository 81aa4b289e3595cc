//! What the customer's servers are told: webhooks, the truth they were told, how what waits for them
//! is handed on. Pure, and without a protocol: a body is bytes, a connection is somebody else's.

pub mod facts;
pub mod lanes;
pub mod truth;
pub mod webhook;
