//! W1: 30 Baileys accounts. Restore, first upload, what is stored, memory, and the clean stop.

use std::time::{Duration, Instant};

use super::{Context, is_alone, remove};
use crate::measure::median;
use crate::process::{self, GaveUp, Outcome, Running};
use crate::subject::product::{ENDED, Product, memory};
use crate::subject::{limits, node};
use crate::{server, workload};

/// For whatever of the product should take seconds.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(context: &mut Context<'_>) {
    let source = context.path("source");
    let bytes = workload::baileys::accounts(&source, context.scale.accounts);
    let files = context.scale.accounts * workload::baileys::FILES;
    context.put("w1.files", files as f64);
    context.put("w1.bytes", bytes as f64);
    product_and_limits(context, &source, bytes);
    if !is_alone() {
        peers(context, &source, bytes);
    }
}

/// A product that runs over W1 and has committed it; and how long that took from its start.
pub(super) fn uploaded(product: &Product) -> (Running, Duration) {
    let begun = Instant::now();
    let mut running = product.start();
    running.wait_for("] committed", PATIENCE);
    (running, begun.elapsed())
}

fn product_and_limits(context: &mut Context<'_>, source: &std::path::Path, bytes: u64) {
    let mut samples: [Vec<f64>; 11] = Default::default();
    let [
        upload,
        insert,
        reads,
        restore,
        writes,
        find,
        stops,
        ratios,
        restore_ratios,
        upload_cpu,
        restore_cpu,
    ] = &mut samples;
    let (mut restore_peak, mut upload_peak, mut stored) = (0, 0, 0);
    // In turn, so that a noisy moment is noisy for all of them.
    for round in 0..context.scale.rounds {
        let url = context.database();
        let session = context.path("session");
        workload::copy(source, &session);
        let product = Product::new(&url, &session);
        let (running, took) = uploaded(&product);
        upload.push(took.as_secs_f64());
        upload_cpu.push(running.cpu().as_secs_f64());
        upload_peak = upload_peak.max(memory(&running).watcher_peak_rss);
        running.stop(PATIENCE);
        stored = server::stored(&url);

        let limit_url = context.database();
        let inserted = limits::insert_many(&limit_url, source);
        insert.push(inserted.as_secs_f64());
        ratios.push(took.as_secs_f64() / inserted.as_secs_f64());

        let (contents, took) = limits::read(source);
        reads.push(took.as_secs_f64());
        let plain = context.path("plain");
        let written = limits::write(&contents, &plain);
        drop(contents);
        writes.push(written.as_secs_f64());
        remove(&plain);

        let restored = context.path("restored");
        let outcome = product.restore(&restored).expect("the restore");
        restore.push(outcome.took.as_secs_f64());
        restore_ratios.push(outcome.took.as_secs_f64() / written.as_secs_f64());
        restore_cpu.push(outcome.cpu.as_secs_f64());
        restore_peak = restore_peak.max(outcome.peak_rss);
        if round == 0 {
            workload::assert_same(source, &restored);
        }
        remove(&restored);

        let found = context.path("found");
        find.push(limits::find(&limit_url, &found).as_secs_f64());
        if round == 0 {
            workload::assert_same(source, &found);
            let limit_stored = server::stored(&limit_url) as f64 / bytes as f64;
            context.put("w1.stored.insert_many", limit_stored);
        }
        remove(&found);

        // A clean stop with nothing dirty, of a gateway that ends at once.
        let mut running = product.start();
        running.wait_for("ready for changes", PATIENCE);
        let (took, status) = running.stop(PATIENCE);
        assert_eq!(status.code(), Some(ENDED), "the stop failed: {status}");
        stops.push(took.as_secs_f64());
        remove(&session);
    }
    let names = [
        "w1.upload.product",
        "w1.upload.insert_many",
        "w1.upload.read",
        "w1.restore.product",
        "w1.restore.plain",
        "w1.restore.find",
        "w1.stop.product",
        "w1.upload.ratio",
        "w1.restore.ratio",
        "w1.cpu.upload.product",
        "w1.cpu.restore.product",
    ];
    for (name, samples) in names.into_iter().zip(&samples) {
        context.put(name, median(samples));
    }
    context.put("w1.rss.restore.product", restore_peak as f64);
    context.put("w1.rss.upload.product", upload_peak as f64);
    context.put("w1.stored.product", stored as f64 / bytes as f64);
}

fn peers(context: &mut Context<'_>, source: &std::path::Path, bytes: u64) {
    let patience = context.scale.patience;
    for at_a_time in [16, 1] {
        let name = format!("sidecar{at_a_time}");
        let url = context.database();
        let upload = process::run(node::sidecar(&url, source, "upload", at_a_time), patience);
        note(context, "upload", &name, upload);
        if at_a_time == 16 {
            let stored = server::stored(&url) as f64 / bytes as f64;
            context.put("w1.stored.sidecar", stored);
        }
        let to = context.path("peer");
        let restore = process::run(node::sidecar(&url, &to, "restore", at_a_time), patience);
        if restore.is_ok() {
            workload::assert_same(source, &to);
        }
        note(context, "restore", &name, restore);
        let _ = std::fs::remove_dir_all(&to);
    }
    for mode in ["each", "bulk"] {
        let name = format!("keys_{mode}");
        let url = context.database();
        let upload = process::run(node::keys(&url, source, "upload", mode), patience);
        note(context, "upload", &name, upload);
        if mode == "each" {
            let stored = server::stored(&url) as f64 / bytes as f64;
            context.put("w1.stored.keys", stored);
        }
        let to = context.path("peer");
        let restore = process::run(node::keys(&url, &to, "restore", mode), patience);
        if restore.is_ok() {
            workload::assert_same(source, &to);
        }
        note(context, "restore", &name, restore);
        let _ = std::fs::remove_dir_all(&to);
    }
}

fn note(context: &mut Context<'_>, what: &str, name: &str, outcome: Result<Outcome, GaveUp>) {
    match outcome {
        Ok(outcome) => {
            context.took(&format!("w1.{what}.{name}"), outcome.took);
            context.took(&format!("w1.cpu.{what}.{name}"), outcome.cpu);
            let peak = outcome.peak_rss as f64;
            context.put(&format!("w1.rss.{what}.{name}"), peak);
        }
        Err(GaveUp(why)) => context.results.note(&format!("w1.{what}.{name}"), why),
    }
}
