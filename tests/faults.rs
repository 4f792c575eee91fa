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

#[path = "faults/campaign.rs"]
mod campaign;
#[path = "faults/churned.rs"]
mod churned;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/network.rs"]
mod network;
#[path = "../supervisor/benches/compare/subject/node.rs"]
#[allow(dead_code, reason = "the benchmarks use more of it")]
mod node;
#[path = "main_job/raw.rs"]
mod raw;
#[path = "faults/restores.rs"]
mod restores;
#[path = "../supervisor/examples/churn/shape.rs"]
mod shape;
#[path = "faults/sidecar.rs"]
mod sidecar;
#[path = "faults/sidecar_defects.rs"]
mod sidecar_defects;

/// Bytes that do not compress and have no repetition.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}
