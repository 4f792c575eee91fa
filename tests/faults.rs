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
#[path = "support/tree.rs"]
mod tree;

#[path = "faults/archive_at_rest.rs"]
mod archive_at_rest;
#[path = "faults/campaign.rs"]
mod campaign;
#[path = "faults/churned.rs"]
mod churned;
#[path = "faults/damage.rs"]
mod damage;
#[path = "faults/damage_random.rs"]
mod damage_random;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/foreign.rs"]
mod foreign;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/random_damage.rs"]
mod random_damage;
#[allow(dead_code, reason = "shared with the main job, which uses more of it")]
#[path = "main_job/raw.rs"]
mod raw;
#[path = "../supervisor/examples/churn/shape.rs"]
mod shape;
#[path = "faults/tamper.rs"]
mod tamper;
