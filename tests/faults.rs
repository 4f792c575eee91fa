//! The fault campaign: what can break is broken on purpose, again and again, around the real
//! program and a real mongod, and after each time it is asked what is left.
//!
//! Each run is seeded and repeatable; [`campaign`] says how to make it longer.

#[path = "support/built.rs"]
mod built;
#[path = "support/example.rs"]
mod example;
#[path = "support/inject.rs"]
mod inject;
#[path = "support/keeper.rs"]
mod keeper;
#[path = "support/mongod.rs"]
mod mongod;
#[path = "support/process.rs"]
mod process;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/small.rs"]
mod small;
#[path = "support/tree.rs"]
mod tree;

#[path = "faults/campaign.rs"]
mod campaign;
#[path = "faults/descriptors.rs"]
mod descriptors;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/errors.rs"]
mod errors;
#[path = "faults/inotify.rs"]
mod inotify;
#[path = "faults/modes.rs"]
mod modes;
#[path = "faults/restore_errors.rs"]
mod restore_errors;
#[path = "faults/secrets.rs"]
mod secrets;
#[path = "faults/sizes.rs"]
mod sizes;
#[path = "faults/tree_shapes.rs"]
mod tree_shapes;
