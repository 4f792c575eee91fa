//! What faces the outside, of the real `sessionkeep run`: health, status, metrics, the dashboard in a real
//! browser, access, incidents and who is told of them.

#[path = "support/built.rs"]
mod built;
#[path = "support/example.rs"]
mod example;
#[path = "support/keeper.rs"]
mod keeper;
#[path = "support/line.rs"]
mod line;
#[path = "support/mongod.rs"]
mod mongod;
#[path = "support/policy.rs"]
mod policy;
#[path = "support/process.rs"]
mod process;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/small.rs"]
mod small;
#[path = "support/tree.rs"]
mod tree;

#[path = "http/ask.rs"]
mod ask;
#[path = "http/hook.rs"]
mod hook;
#[path = "http/waha.rs"]
mod waha;

#[path = "http/access.rs"]
mod access;
#[path = "http/browser.rs"]
mod browser;
#[path = "http/incidents.rs"]
mod incidents;
#[path = "http/load.rs"]
mod load;
#[path = "http/metrics.rs"]
mod metrics;
#[path = "http/qr.rs"]
mod qr;
#[path = "http/schema.rs"]
mod schema;
#[path = "http/states.rs"]
mod states;
#[path = "http/terminal.rs"]
mod terminal;
