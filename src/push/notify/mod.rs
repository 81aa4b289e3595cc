//! Notifications as backends ask for them: whom they are for, what is said to each, whether live, by
//! push, or by push where nobody acknowledged; and what became of them. Ends where a delivery is
//! queued for a device.

pub mod jobs;
pub mod quiet;
pub mod request;
pub mod spec;
pub mod template;
