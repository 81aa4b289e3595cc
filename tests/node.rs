//! The roles played by hand, one node at a time: what their neighbours say too late, twice or
//! wrongly, which neither a transcript nor a simulation brings about.

mod world;

#[path = "node/apps.rs"]
mod apps;
#[path = "node/courier.rs"]
mod courier;
#[path = "node/courier_devices.rs"]
mod courier_devices;
#[path = "node/courier_memory.rs"]
mod courier_memory;
#[path = "node/courier_news.rs"]
mod courier_news;
#[path = "node/hand.rs"]
mod hand;
#[path = "node/history.rs"]
mod history;
#[path = "node/switchboard_links.rs"]
mod switchboard_links;
#[path = "node/switchboard_play.rs"]
mod switchboard_play;
#[path = "node/switchboard_promises.rs"]
mod switchboard_promises;
#[path = "node/switchboard_reports.rs"]
mod switchboard_reports;
#[path = "node/worker_channels.rs"]
mod worker_channels;
#[path = "node/worker_links.rs"]
mod worker_links;
#[path = "node/worker_numbers.rs"]
mod worker_numbers;
#[path = "node/worker_play.rs"]
mod worker_play;
#[path = "node/worker_requests.rs"]
mod worker_requests;
#[path = "node/worker_services.rs"]
mod worker_services;
#[path = "node/worker_sessions.rs"]
mod worker_sessions;
