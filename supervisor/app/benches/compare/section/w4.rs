//! W4: W1 at rest, and then a thousand rewrites over a minute.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::w1::uploaded;
use super::{Context, is_alone};
use crate::measure::{self, percentile};
use crate::observe::{Observation, Observer, latencies};
use crate::process::Running;
use crate::subject::node;
use crate::subject::product::{Product, memory};
use crate::writer::{Task, Written};
use crate::{server, workload};

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(context: &mut Context<'_>) {
    let bytes = {
        let source = context.path("source");
        workload::baileys::accounts(&source, context.scale.accounts)
    };
    product(context, bytes);
    if !is_alone() {
        sidecar(context);
    }
}

fn product(context: &mut Context<'_>, bytes: u64) {
    let url = context.database();
    let dir = context.path("source");
    let (running, _) = uploaded(&Product::new(&url, &dir).set(context.scale.lease));
    thread::sleep(context.scale.settle);

    server::record(&url);
    idle(context, &running, "product");
    let asked = server::recorded(&url);
    context.put("idle.writes.product", asked.writes as f64);
    context.put("idle.lease.product", asked.lease as f64);
    assert!(
        asked.lease > 0,
        "the record of what was asked shows nothing"
    );
    let resident = memory(&running);
    context.put("idle.pss.init", resident.init_pss as f64);
    let both = resident.init_pss + resident.watcher_pss;
    context.put("idle.pss.product", both as f64);

    server::record(&url);
    let observer = Observer::product(&url, None);
    let written = rewrite(context, &dir, &running, "product");
    let observation = observer.stop();
    let asked = server::recorded(&url);
    let peak = memory(&running).watcher_peak_rss;
    context.put("w4.rss.product", peak as f64);
    report(context, "w4", "product", &written, &observation);
    let batches = observation.changes as f64;
    context.put("w4.batches.product", batches);
    context.put("w4.operations.product", asked.operations as f64 / batches);
    context.put(
        "w4.stored.product",
        server::stored(&url) as f64 / bytes as f64,
    );
    running.stop(PATIENCE);
}

fn sidecar(context: &mut Context<'_>) {
    // Its store is empty: what it uploads is only what changes, and there is hardly an older
    // revision to delete, which is in its favour.
    let url = context.database();
    let dir = context.w1("sidecar");
    let begun = Instant::now();
    let mut running = Running::start(node::sidecar(&url, &dir, "watch", 16));
    running.wait_for("watching", PATIENCE);
    context.took("w4.ready.sidecar", begun.elapsed());
    thread::sleep(context.scale.settle);
    idle(context, &running, "sidecar");
    let process = running.with_argument("watch");
    context.put("idle.pss.sidecar", measure::pss(process) as f64);

    let observer = Observer::sidecar(&url);
    let written = rewrite(context, &dir, &running, "sidecar");
    let observation = observer.stop();
    context.put("w4.rss.sidecar", running.peak_rss() as f64);
    report(context, "w4", "sidecar", &written, &observation);
    running.stop(PATIENCE);
}

fn idle(context: &mut Context<'_>, running: &Running, name: &str) {
    let (cpu, begun) = (running.cpu(), Instant::now());
    thread::sleep(Duration::from_secs(context.scale.idle));
    let share = (running.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    context.put(&format!("idle.cpu.{name}"), share * 100.0);
}

fn rewrite(context: &mut Context<'_>, dir: &Path, running: &Running, name: &str) -> Vec<Written> {
    let (count, seconds) = context.scale.rewrites;
    let task = Task::Rewrite {
        accounts: context.scale.accounts,
        count,
        seconds,
    };
    let log = context.path(&format!("{name}.log"));
    let (cpu, begun) = (running.cpu(), Instant::now());
    let log = task.start(dir, &log).finish();
    let share = (running.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    context.put(&format!("w4.cpu.{name}"), share * 100.0);
    thread::sleep(context.scale.tail);
    log.files()
}

/// Notes from the close of each file until it was durable, in milliseconds.
pub(super) fn report(
    context: &mut Context<'_>,
    section: &str,
    name: &str,
    written: &[Written],
    observation: &Observation,
) {
    let (samples, missing) = latencies(written, observation);
    assert!(
        missing < samples.len(),
        "no write of {name} was seen in its store"
    );
    let put = |context: &mut Context<'_>, what: &str, value| {
        context.put(&format!("{section}.durable.{name}.{what}"), value);
    };
    put(context, "p50", percentile(&samples, 50.0));
    put(context, "p99", percentile(&samples, 99.0));
    put(context, "max", percentile(&samples, 100.0));
    put(context, "missing", missing as f64);
}
