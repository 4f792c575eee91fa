//! W5: the everyday case. One account and one message a second, ten minutes long, for the product
//! and the sidecar in the same ten minutes, each with its own copy, database and writer.

use std::time::{Duration, Instant};

use super::Context;
use super::w1::uploaded;
use super::w4::report;
use crate::observe::Observer;
use crate::process::{self, Running};
use crate::server;
use crate::subject::node;
use crate::subject::product::{Product, memory};
use crate::workload::baileys;
use crate::writer::Task;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(context: &mut Context<'_>) {
    let (ours, theirs) = (context.database(), context.database());
    let (our_dir, their_dir) = (context.path("product"), context.path("sidecar"));
    let bytes = baileys::account(&our_dir, 0);
    baileys::account(&their_dir, 0);
    context.put("w5.bytes", bytes as f64);

    let upload = node::sidecar(&theirs, &their_dir, "upload", 16);
    process::run(upload, PATIENCE).expect("the sidecar uploads one account");
    let mut sidecar = Running::start(node::sidecar(&theirs, &their_dir, "watch", 16));
    sidecar.wait_for("watching", PATIENCE);
    let (product, _) = uploaded(&Product::new(&ours, &our_dir));
    std::thread::sleep(context.scale.settle);

    server::record(&ours);
    let observers = (Observer::product(&ours, None), Observer::sidecar(&theirs));
    let task = Task::Messages {
        seconds: context.scale.messages,
    };
    let before = (product.cpu(), sidecar.cpu(), Instant::now());
    let writers = (
        task.start(&our_dir, &context.path("product.log")),
        task.start(&their_dir, &context.path("sidecar.log")),
    );
    let logs = (writers.0.finish(), writers.1.finish());
    let took = before.2.elapsed().as_secs_f64();
    let share = |now: Duration, before: Duration| (now - before).as_secs_f64() / took * 100.0;
    context.put("w5.cpu.product", share(product.cpu(), before.0));
    context.put("w5.cpu.sidecar", share(sidecar.cpu(), before.1));
    std::thread::sleep(context.scale.tail);
    let observations = (observers.0.stop(), observers.1.stop());
    let asked = server::recorded(&ours);
    report(context, "w5", "product", &logs.0.files(), &observations.0);
    report(context, "w5", "sidecar", &logs.1.files(), &observations.1);
    let batches = observations.0.changes as f64;
    context.put("w5.batches.product", batches);
    context.put("w5.operations.product", asked.operations as f64 / batches);
    let peak = memory(&product).watcher_peak_rss;
    context.put("w5.rss.product", peak as f64);
    context.put("w5.rss.sidecar", sidecar.peak_rss() as f64);
    product.stop(PATIENCE);
    sidecar.stop(PATIENCE);
}
