//! What goes out to others. To the customer's servers: webhooks, the truth they were told, how what
//! waits for them is handed on. To devices: who is registered, notifications, and the providers that
//! carry them. Pure, and without a connection: a request is made here and an answer is read, sending
//! is somebody else's.

pub mod delivery;
pub mod devices;
pub mod facts;
pub mod jobs;
pub mod lanes;
pub mod news;
pub mod notify;
pub mod providers;
pub mod truth;
pub mod webhook;
