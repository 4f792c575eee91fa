//! The dead man's switch: an address that is asked for while all is well. A service that expects it
//! alarms when it stays away, whatever the reason: also where this host is gone.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tracing::{info, warn};

use super::client::Client;
use crate::status::{ErrorKind, HealthVerdict, Shared};
use sessionkeep_core::secret::Secret;

/// An answer's content is of no interest.
const ANSWER_MAX: usize = 64 << 10;

pub(crate) async fn beat(client: Client, url: Secret, every: Duration, shared: Shared) {
    let mut failing = false;
    loop {
        // A standby is well, and is no sign that the number is.
        if *shared.checks().verdict() == HealthVerdict::Ok {
            let asked = client.ask(Method::GET, url.expose(), vec![], Bytes::new(), ANSWER_MAX);
            let why = match asked.await {
                Ok(answer) if answer.status.is_success() => None,
                Ok(answer) => Some(format!("it answered {}", answer.status.as_u16())),
                Err(error) => Some(error.to_string()),
            };
            match &why {
                Some(why) => {
                    shared.meters().error(ErrorKind::Heartbeat);
                    if !failing {
                        warn!(target: "notify", why, "the heartbeat does not arrive; retrying");
                    }
                }
                None if failing => info!(target: "notify", "the heartbeat arrives again"),
                None => {}
            }
            failing = why.is_some();
        }
        tokio::time::sleep(every).await;
    }
}
