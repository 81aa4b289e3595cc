//! What a message means, whatever transport carried it. Pure: an application is told what happened
//! and says what is to happen through the `Cx` it is handed.

pub mod addon;
pub mod api;
pub mod api_body;
pub mod api_history;
pub mod application;
pub mod apps;
pub mod caller;
pub mod channels;
pub mod client;
pub mod cors;
pub mod echo;
pub mod exposition;
pub mod files;
pub mod gateway;
pub mod handler;
pub mod media;
pub mod metrics;
pub mod probe;
pub mod readers;
pub mod service;
pub mod sessions;
pub mod users;
