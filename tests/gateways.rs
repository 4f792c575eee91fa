//! Real gateways under `sessionkeep run`, against a real mongod: a bot on the Baileys library, one
//! on whatsmeow's database, and the trees that WAHA's engines leave. No stand-ins: what is asked
//! after each restore is whether the library itself goes on.

#[path = "support/mongod.rs"]
mod mongod;

#[path = "gateways_suite/evidence.rs"]
mod evidence;
#[path = "gateways_suite/life.rs"]
mod life;
#[path = "gateways_suite/place.rs"]
mod place;

#[path = "gateways_suite/baileys.rs"]
mod baileys;
#[path = "gateways_suite/baileys_crash.rs"]
mod baileys_crash;
#[path = "gateways_suite/baileys_unpaused.rs"]
mod baileys_unpaused;
#[path = "gateways_suite/baileys_versions.rs"]
mod baileys_versions;
#[path = "gateways_suite/waha_tree.rs"]
mod waha_tree;
#[path = "gateways_suite/whatsmeow.rs"]
mod whatsmeow;
#[path = "gateways_suite/whatsmeow_versions.rs"]
mod whatsmeow_versions;
