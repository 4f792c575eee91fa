//! Tells incidents to an address, one after the other, until each has arrived.
//!
//! A message is JSON. Where there is a key, `X-Sessionkeep-Signature: sha256=HEX` is the HMAC-SHA256 (RFC
//! 2104) of the value of `X-Sessionkeep-Timestamp`, a dot, and the body: a receiver can tell that it is
//! genuine, and not an old one sent again.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::json;
use sha2::Sha256;
use tracing::{info, warn};

use super::client::Client;
use crate::config::Settings;
use crate::status::incidents::{Incident, Phase, Shown};
use crate::status::{ErrorKind, Shared};
use sessionkeep_core::human::Timestamp;
use sessionkeep_core::secret::Secret;

const ANSWER_MAX: usize = 64 << 10;
const SIGNATURE: HeaderName = HeaderName::from_static("x-sessionkeep-signature");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-sessionkeep-timestamp");
const ID: HeaderName = HeaderName::from_static("x-sessionkeep-id");
/// Between tries: doubled each time, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Tells what is to be told, for as long as it runs; does nothing without an address.
pub(crate) async fn tell(client: &Client, settings: &Settings, shared: &Shared) {
    let Some(url) = &settings.webhook.url else {
        return std::future::pending().await;
    };
    let mut pause = PAUSE;
    let mut failing = false;
    let mut news = shared.ledger().subscribe();
    loop {
        news.mark_unchanged();
        let Some((incident, phase)) = shared.ledger().untold() else {
            let _ = news.changed().await;
            continue;
        };
        match send(client, url, settings, shared, &incident, phase).await {
            Ok(()) => {
                shared.ledger().told(&incident.id, phase);
                if failing {
                    info!(target: "notify", "the webhook takes messages again");
                }
                (pause, failing) = (PAUSE, false);
            }
            Err(why) => {
                shared.meters().error(ErrorKind::Webhook);
                if !failing {
                    warn!(target: "notify", why, "the webhook does not accept messages; retrying");
                }
                failing = true;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn send(
    client: &Client,
    url: &Secret,
    settings: &Settings,
    shared: &Shared,
    incident: &Incident,
    phase: Phase,
) -> Result<(), String> {
    let body = body(settings, shared, incident, phase);
    let headers = headers(settings, incident, &body);
    let answer = client.ask(Method::POST, url.expose(), headers, body, ANSWER_MAX);
    match answer.await {
        Ok(answer) if answer.status.is_success() => Ok(()),
        Ok(answer) => Err(format!("it answered {}", answer.status.as_u16())),
        Err(error) => Err(error.to_string()),
    }
}

fn body(settings: &Settings, shared: &Shared, incident: &Incident, phase: Phase) -> Bytes {
    let status = shared.read();
    let mut shown = Shown::from(incident);
    let (event, text) = match phase {
        Phase::Opened => {
            // It may be over by the time that its begin is told.
            shown.until_ms = None;
            let text = format!("{}: {}. {}", shown.title, shown.detail, shown.remedy);
            ("incident.opened", text)
        }
        Phase::Closed => ("incident.closed", format!("Over: {}", shown.title)),
    };
    let message = json!({
        "event": event,
        "text": format!("[{}] {text}", settings.archive),
        "archive": settings.archive.to_string(),
        "instance": status.instance,
        "version": status.version,
        "time": Timestamp::now().to_string(),
        "incident": shown,
    });
    Bytes::from(message.to_string())
}

fn headers(
    settings: &Settings,
    incident: &Incident,
    body: &[u8],
) -> Vec<(HeaderName, HeaderValue)> {
    let ascii = |text: String| HeaderValue::from_str(&text).expect("it is of plain letters");
    let timestamp = (Timestamp::now().0 / 1000).to_string();
    let mut headers = vec![
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (
            ID,
            ascii(incident.id.chars().filter(char::is_ascii_graphic).collect()),
        ),
        (TIMESTAMP, ascii(timestamp.clone())),
    ];
    if let Some(secret) = &settings.webhook.secret {
        let signature = sign(secret, &timestamp, body);
        headers.push((SIGNATURE, ascii(format!("sha256={signature}"))));
    }
    headers
}

fn sign(secret: &Secret, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_any_receiver_computes() {
        // printf '1795775361.{"a":1}' | openssl dgst -sha256 -hmac 'a key'
        let signature = sign(&Secret::new("a key"), "1795775361", br#"{"a":1}"#);
        assert_eq!(signature, SIGNED);
    }

    const SIGNED: &str = "cacd260d60feb678a803fd2f47ed622f27fbd4ef9b108b50793ee1bb46b11668";
}
