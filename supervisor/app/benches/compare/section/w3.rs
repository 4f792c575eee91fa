//! W3: a browser profile, most of which is cache.

use std::time::{Duration, Instant};

use super::{Context, remove};
use crate::process::{self, GaveUp};
use crate::server;
use crate::subject::node;
use crate::subject::product::{Product, memory};
use crate::workload::{self, chrome};

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(context: &mut Context<'_>) {
    let source = context.path("source");
    let (files, bytes) = chrome::profile(&source, context.scale.profile_part);
    context.put("w3.files", files as f64);
    context.put("w3.bytes", bytes as f64);

    let url = context.database();
    let session = context.path("session");
    workload::copy(&source, &session);
    let product = Product::new(&url, &session).with_profile("waha");
    let begun = Instant::now();
    let mut running = product.start();
    running.wait_for("] committed", PATIENCE);
    context.took("w3.upload.product", begun.elapsed());
    let peak = memory(&running).watcher_peak_rss;
    context.put("w3.rss.upload.product", peak as f64);
    running.stop(PATIENCE);
    let stored = server::stored(&url) as f64 / bytes as f64;
    context.put("w3.stored.product", stored);
    let to = context.path("restored");
    let outcome = product.restore(&to).expect("the restore");
    context.took("w3.restore.product", outcome.took);
    context.put("w3.rss.restore.product", outcome.peak_rss as f64);
    let kept = workload::files_below(&to);
    assert!(!kept.is_empty(), "nothing of the profile came back");
    for file in &kept {
        let same = std::fs::read(source.join(file)).expect("read")
            == std::fs::read(to.join(file)).expect("read");
        assert!(same, "{file:?} came back with another content");
    }
    remove(&to);
    remove(&session);

    let url = context.database();
    let patience = context.scale.patience;
    match process::run(node::sidecar(&url, &source, "upload", 16), patience) {
        Ok(outcome) => {
            context.took("w3.upload.sidecar16", outcome.took);
            context.put("w3.rss.upload.sidecar16", outcome.peak_rss as f64);
            let stored = server::stored(&url) as f64 / bytes as f64;
            context.put("w3.stored.sidecar", stored);
        }
        Err(GaveUp(why)) => context.results.note("w3.upload.sidecar16", why),
    }
    match process::run(node::sidecar(&url, &to, "restore", 16), patience) {
        Ok(outcome) => {
            context.took("w3.restore.sidecar16", outcome.took);
            workload::assert_same(&source, &to);
        }
        Err(GaveUp(why)) => context.results.note("w3.restore.sidecar16", why),
    }
}
