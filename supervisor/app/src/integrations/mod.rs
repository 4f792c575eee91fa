//! What goes out: questions to the gateway's own API, webhooks, the heartbeat, and a look now and then
//! at what no event tells. All of it waits for others, and runs in the thread of [`crate::service_thread`].

mod client;
pub(crate) mod heartbeat;
pub(crate) mod observe;
pub(crate) mod waha;
pub(crate) mod webhook;

pub(crate) use client::Client;
