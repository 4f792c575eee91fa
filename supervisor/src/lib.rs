//! A WhatsApp login that survives any restart: the init of a gateway's container that restores
//! its session directory, replicates each change, and saves the last byte after it has stopped.

pub mod archive;
pub mod boot;
pub mod cli;
pub mod config;
pub mod control;
pub mod entry;
pub mod exit;
pub mod http;
pub mod human;
pub mod init;
pub mod log;
pub mod session;
pub mod store;
pub mod watcher;
