//! PID 1 with real processes: each test as an ordinary process (a subreaper) and as a real PID 1
//! in a namespace of its own. Where a store matters, `init_harness` plays its part.

#[path = "support/built.rs"]
mod built;
#[path = "support/faketime.rs"]
mod faketime;
#[path = "support/policy.rs"]
mod policy;

#[path = "init/basics.rs"]
mod basics;
#[path = "init/codes.rs"]
mod codes;
#[path = "init/hostile.rs"]
mod hostile;
#[path = "init/init_only.rs"]
mod init_only;
#[path = "init/life.rs"]
mod life;
#[path = "init/orphans.rs"]
mod orphans;
#[path = "init/restarts.rs"]
mod restarts;
#[path = "init/rights.rs"]
mod rights;
#[path = "init/signals.rs"]
mod signals;
#[path = "init/sockets.rs"]
mod sockets;
#[path = "init/terminal.rs"]
mod terminal;
