//! Hostile gateways: the real `sessionkeep run` as root, and under it a gateway of another user that
//! tries for at least half a minute to make it do what the user may not. The attacker is the
//! example `attacker`, with a file for each attack.

#[path = "support/built.rs"]
mod built;
#[path = "support/example.rs"]
mod example;
#[path = "support/keeper.rs"]
mod keeper;
#[path = "support/mongod.rs"]
mod mongod;
#[path = "support/policy.rs"]
mod policy;
#[path = "support/process.rs"]
mod process;
#[path = "support/tree.rs"]
mod tree;

#[path = "hostile/place.rs"]
mod place;

#[path = "hostile/pause.rs"]
mod pause;
#[path = "hostile/peek.rs"]
mod peek;
#[path = "hostile/replace.rs"]
mod replace;
#[path = "hostile/scratch.rs"]
mod scratch;
#[path = "hostile/swap.rs"]
mod swap;
