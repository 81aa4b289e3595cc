//! What must survive a crash, on the disk. Blocking libraries on named threads, reached over bounded
//! queues; knows neither nodes nor sockets, only what `push` wants kept.

pub mod backup;
pub mod deliveries;
pub mod desk;
pub mod device_jobs;
pub mod devices;
mod jobs;
#[cfg(test)]
mod kit;
pub mod news;
pub mod notifications;
pub mod postgres;
pub mod rows;
#[cfg(test)]
mod sharing_tests;
pub mod sqlite;
mod sqlite_rows;
pub mod verify;
