//! What runs in a process of its own: init's two helpers, and what both need.
//!
//! | module | concern |
//! |---|---|
//! | [`restorer`] | `sessionkeep restore` under init: the directory comes to the store's state |
//! | [`watcher`] | `sessionkeep watch`: changes are committed until the flush |
//! | [`alone`] | what a helper does for itself where no init does it |
//! | [`setup`] | what init has to know of the settings |
//! | [`runtime`], [`threads`] | the async runtime, and whether threads can be had |

pub(crate) mod alone;
pub(crate) mod restorer;
pub(crate) mod runtime;
pub(crate) mod setup;
pub(crate) mod threads;
pub(crate) mod watcher;
