//! Settings: what can be set, from where, and what is in force.

mod model;

pub use model::{
    Conflict, GatewaySettings, HistorySettings, HttpSettings, LeaseSettings, LogFormat, LogLevel,
    LogSettings, ProfileName, RestartPolicy, RestartSettings, Secret, Settings, StopSettings,
    StoreChoice, StoreSettings, SyncSettings, Unreachable,
};
