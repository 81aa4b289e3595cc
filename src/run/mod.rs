//! The operating system: processes, signals, descriptors handed over, the verbs of the command
//! line. Owns everything that touches another process; does not know what a client says.
//!
//! - [`start`], [`client`]: what `start` does, and what the other verbs ask of a running server
//! - [`master`]: the loop; [`children`] and [`replacing`] decide, [`site`] and [`spawn`] carry out
//! - [`status`], [`watch`]: what is shown
//! - [`exec`], [`inheritance`], [`take_over`]: the master as another program in the same process
//! - [`role`]: a child's side
//! - [`mock`]: a push provider that is none
//! - [`certificates`]: TLS, from the disk to the reactors
//! - [`os`]: the system calls that need `unsafe`

pub mod banner;
pub mod certificate_files;
pub mod certificates;
pub mod child_process;
pub mod children;
pub mod client;
pub mod connections;
pub mod control;
mod courier_post;
pub mod daemon;
pub mod end;
pub mod exec;
pub mod exit;
pub mod explain;
pub mod handed_config;
pub mod handover;
pub mod identity;
pub mod inheritance;
mod key_vault;
pub mod ledger;
pub mod link;
pub mod log;
pub mod log_file;
pub mod master;
pub mod mock;
pub mod notify;
pub mod os;
pub mod pass_fd;
pub mod rates;
pub mod replacing;
pub mod role;
pub mod roots;
pub mod rundir;
pub mod secrets;
pub mod signals;
pub mod site;
pub mod slots;
pub mod socket_file;
pub mod spawn;
pub mod stack;
pub mod start;
pub mod status;
pub mod store;
pub mod take_over;
pub mod totals;
pub mod watch;
