//! Settings: what can be set, from where, and what is in force.
//!
//! One table (`registry`) lists every setting; `sources` collects texts from flags, environment
//! and file, reads them by that table, and reports everything that is wrong at once; `checks`
//! looks for what is wrong only in combination. The result is [`Settings`].

mod checks;
pub(crate) mod duration;
mod file;
mod flags;
mod model;
mod paths;
pub(crate) mod problem;
mod proxies;
mod reference;
pub(crate) mod registry;
mod secret_files;
pub(crate) mod sources;
pub(crate) mod store_url;
mod values;

pub use flags::Flags;
pub(crate) use flags::is_secret_argument;
pub use model::{
    AlarmSettings, Conflict, FreezePolicy, GatewaySettings, HeartbeatSettings, HistorySettings,
    HttpSettings, LeaseSettings, LogFormat, LogLevel, LogSettings, OutagePolicy, ProfileName,
    RestartSettings, RestoreSettings, Settings, StopSettings, StoreSettings, SyncSettings,
    Unreachable, WebhookSettings,
};
pub(crate) use paths::as_path;
pub use problem::{ConfigErrors, Problem};
pub use proxies::TrustedProxies;
pub use reference::page as reference;
#[cfg(test)]
pub(crate) use registry::defaults;
pub use sources::{Loaded, Note, Origin, Source, Weight, load, load_init_only};
