//! The main job, end to end: the real `sessionkeep run` with real gateways under it, against a
//! real mongod and, where both are equal, the SQLite store. What is promised is tested by
//! breaking what it is promised against.

#[path = "support/built.rs"]
mod built;
#[path = "support/example.rs"]
mod example;
#[path = "support/faketime.rs"]
mod faketime;
#[path = "support/keeper.rs"]
mod keeper;
#[path = "support/line.rs"]
mod line;
#[path = "support/mongod.rs"]
mod mongod;
#[path = "support/noise.rs"]
mod noise;
#[path = "support/policy.rs"]
mod policy;
#[path = "support/process.rs"]
mod process;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/replica_set.rs"]
mod replica_set;
#[path = "support/small.rs"]
mod small;
#[path = "support/tree.rs"]
mod tree;

#[path = "main_job/boot_table.rs"]
mod boot_table;
#[path = "main_job/cli.rs"]
mod cli;
#[path = "main_job/clocks.rs"]
mod clocks;
#[path = "main_job/confined.rs"]
mod confined;
#[path = "main_job/crash.rs"]
mod crash;
#[path = "main_job/excluded.rs"]
mod excluded;
#[path = "main_job/file_mode.rs"]
mod file_mode;
#[path = "main_job/handover.rs"]
mod handover;
#[path = "main_job/idle.rs"]
mod idle;
#[path = "main_job/lifecycle.rs"]
mod lifecycle;
#[path = "main_job/log_messages.rs"]
mod log_messages;
#[path = "main_job/login.rs"]
mod login;
#[path = "main_job/mounts.rs"]
mod mounts;
#[path = "main_job/outage.rs"]
mod outage;
#[path = "main_job/own_directory.rs"]
mod own_directory;
#[path = "main_job/ownership.rs"]
mod ownership;
#[path = "main_job/refusal.rs"]
mod refusal;
#[path = "main_job/replica_set.rs"]
mod replica_set_tests;
#[path = "main_job/restore.rs"]
mod restore;
#[path = "main_job/settings.rs"]
mod settings;
