//! A small host: a tenth of a core and 512 MB.

use std::time::{Duration, Instant};

use super::Context;
use super::w4::report;
use crate::cage::{Cage, Limits};
use crate::measure::median;
use crate::observe::Observer;
use crate::process;
use crate::subject::node;
use crate::subject::product::Product;
use crate::writer::Task;

const MEMORY: u64 = 512 << 20;
const PATIENCE: Duration = Duration::from_secs(120);
/// What is reported of it.
const FIGURES: [&str; 5] = [
    "small.restore.product",
    "small.restore.sidecar16",
    "small.cpu.product",
    "small.durable.product.p50",
    "small.durable.product.p99",
];
/// Steady writing on the small host, in seconds; shorter where everything is.
const STEADY: u64 = 60;

pub(crate) fn run(context: &mut Context<'_>) {
    let limits = Limits {
        cpu: context.scale.small_cpu,
        memory: MEMORY,
    };
    let cage = || Cage::limited(limits);
    if cage().is_none() {
        for name in FIGURES {
            let why = "not measured: this machine lets us make no control group with limits";
            context.results.note(name, why);
        }
        return;
    }
    let url = context.database();
    let dir = context.w5("account");
    let product = Product::new(&url, &dir);

    let begun = Instant::now();
    let mut running = product.start_in(cage());
    running.wait_for("] committed", PATIENCE);
    context.took("small.upload.product", begun.elapsed());
    running.wait_for("ready for changes", PATIENCE);
    let observer = Observer::product(&url, None);
    let seconds = STEADY.min(context.scale.messages);
    let (cpu, begun) = (running.cpu(), Instant::now());
    let log = Task::Messages { seconds }
        .start(&dir, &context.path("messages.log"))
        .finish();
    let share = (running.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    context.put("small.cpu.product", share * 100.0);
    std::thread::sleep(context.scale.tail);
    let observation = observer.stop();
    report(context, "small", "product", &log.files(), &observation);
    running.stop(PATIENCE);

    let mut samples = Vec::new();
    for round in 0..context.scale.rounds {
        let to = context.path(&format!("restored-{round}"));
        let outcome = product.restore_in(cage(), &to, PATIENCE);
        samples.push(outcome.expect("the restore").took.as_secs_f64());
    }
    context.put("small.restore.product", median(&samples));

    let url = context.database();
    let upload = node::sidecar(&url, &dir, "upload", 16);
    process::run(upload, PATIENCE).expect("the sidecar uploads one account");
    let to = context.path("sidecar");
    match process::run_in(cage(), node::sidecar(&url, &to, "restore", 16), PATIENCE) {
        Ok(outcome) => context.took("small.restore.sidecar16", outcome.took),
        Err(process::GaveUp(why)) => context.results.note("small.restore.sidecar16", why),
    }
}
