//! The fault campaign: what can break is broken on purpose, again and again, around the real
//! program and a real mongod, and after each time it is asked what is left.
//!
//! Each run is seeded and repeatable; [`campaign`] says how to make it longer.

#[path = "support/built.rs"]
mod built;
#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/example.rs"]
mod example;
#[path = "support/inject.rs"]
mod inject;
#[path = "support/keeper.rs"]
mod keeper;
#[path = "support/line.rs"]
mod line;
#[path = "support/mongod.rs"]
mod mongod;
#[path = "../supervisor/app/benches/compare/subject/node.rs"]
#[allow(dead_code, reason = "the benchmarks use more of it")]
mod node;
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
#[path = "support/refusing.rs"]
mod refusing;
#[path = "../supervisor/app/examples/churn/shape.rs"]
mod shape;
#[path = "support/small.rs"]
mod small;
#[path = "support/tree.rs"]
mod tree;

#[path = "faults/allocations.rs"]
mod allocations;
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
#[path = "faults/databases.rs"]
mod databases;
#[path = "faults/decoders.rs"]
mod decoders;
#[path = "faults/descriptors.rs"]
mod descriptors;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/dump.rs"]
mod dump;
#[path = "faults/errors.rs"]
mod errors;
#[path = "faults/foreign.rs"]
mod foreign;
#[path = "faults/forge.rs"]
mod forge;
#[path = "faults/forged.rs"]
mod forged;
#[path = "faults/forged_bombs.rs"]
mod forged_bombs;
#[path = "faults/forged_chains.rs"]
mod forged_chains;
#[path = "faults/forged_extents.rs"]
mod forged_extents;
#[path = "faults/hearing.rs"]
mod hearing;
#[path = "faults/image.rs"]
mod image;
#[path = "faults/inotify.rs"]
mod inotify;
#[path = "faults/json_gate.rs"]
mod json_gate;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/locks.rs"]
mod locks;
#[path = "faults/modes.rs"]
mod modes;
#[path = "faults/mutate.rs"]
mod mutate;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/never_still.rs"]
mod never_still;
#[path = "faults/random_damage.rs"]
mod random_damage;
#[path = "faults/refused.rs"]
mod refused;
#[path = "faults/restore_errors.rs"]
mod restore_errors;
#[path = "faults/restores.rs"]
mod restores;
#[path = "faults/rights.rs"]
mod rights;
#[path = "faults/secrets.rs"]
mod secrets;
#[path = "faults/sidecar.rs"]
mod sidecar;
#[path = "faults/sidecar_defects.rs"]
mod sidecar_defects;
#[path = "faults/sizes.rs"]
mod sizes;
#[path = "faults/sqlcipher.rs"]
mod sqlcipher;
#[path = "faults/tamper.rs"]
mod tamper;
#[path = "faults/tls.rs"]
mod tls;
#[path = "faults/torn_databases.rs"]
mod torn_databases;
#[path = "faults/tree_shapes.rs"]
mod tree_shapes;
#[path = "faults/types.rs"]
mod types;
#[path = "faults/unheard.rs"]
mod unheard;
#[path = "faults/vanished.rs"]
mod vanished;
