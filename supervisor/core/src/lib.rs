//! What all parts of sessionkeep agree on, and what depends on none of them: the vocabulary of entries
//! and records, the messages between processes, exit codes, and the few operations on the kernel that
//! more than one part needs.
//!
//! There is no async runtime here, no store and no format. Whatever is in this crate is part of PID 1.
//!
//! | module | concern |
//! |---|---|
//! | [`entry`] | paths, owners, modes and digests of what lies in a session directory |
//! | [`record`] | names, numbers and headers of what a store keeps |
//! | [`control`] | the messages between init and its helpers |
//! | [`exit`] | exit codes, each with the operator's next step |
//! | [`secret`], [`hardening`] | texts that are never shown; processes that cannot be read by others |
//! | [`state_dir`], [`beneath`] | our own directory in a session directory, opened so that no link leads out |
//! | [`file_owner`] | why an owner, a mode or a time is not taken |
//! | [`boot_time`] | time that goes on while the machine sleeps |
//! | [`memory`] | giving memory back |
//! | [`human`], [`suggest`], [`invalid`] | what people read: sizes, spans, times, causes, what was meant |

pub mod beneath;
pub mod boot_time;
pub mod control;
pub mod entry;
pub mod exit;
pub mod file_owner;
pub mod hardening;
pub mod human;
pub mod invalid;
pub mod memory;
pub mod record;
mod remove_tree;
pub mod secret;
pub mod state_dir;
pub mod suggest;
