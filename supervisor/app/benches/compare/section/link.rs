//! A link with latency between the container and the store.

use std::path::Path;
use std::time::{Duration, Instant};

use super::w1::uploaded;
use super::{Context, remove};
use crate::link::Link;
use crate::measure::median;
use crate::process::{self, GaveUp};
use crate::subject::node;
use crate::subject::product::Product;
use crate::workload;

const ROUND_TRIPS_MS: [u64; 2] = [30, 100];
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(context: &mut Context<'_>) {
    let source = context.w1("source");
    let account = context.w5("account");
    for ms in ROUND_TRIPS_MS {
        let link = Link::start(
            context.mongod.port(),
            Duration::from_millis(ms / context.scale.nearer),
        );
        let url = link.url(&context.database());
        let session = context.path("session");
        workload::copy(&source, &session);
        let product = Product::new(&url, &session);
        let begun = Instant::now();
        let mut running = product.start();
        running.wait_for("] committed", PATIENCE);
        context.took(&format!("link.{ms}.upload.product"), begun.elapsed());
        running.stop(PATIENCE);
        let mut samples = Vec::new();
        for round in 0..context.scale.rounds.min(3) {
            let to = context.path("restored");
            let outcome = product.restore(&to).expect("the restore");
            samples.push(outcome.took.as_secs_f64());
            if round == 0 {
                workload::assert_same(&source, &to);
            }
            remove(&to);
        }
        context.put(&format!("link.{ms}.restore.product"), median(&samples));
        remove(&session);

        // The sidecar with one account only: each file takes some round trips, whatever else
        // there is.
        one_account(context, &link, &account, ms);
    }
}

fn one_account(context: &mut Context<'_>, link: &Link, account: &Path, ms: u64) {
    let url = context.database();
    let session = context.path("session");
    workload::copy(account, &session);
    let (running, _) = uploaded(&Product::new(&url, &session));
    running.stop(PATIENCE);
    let to = context.path("restored");
    let outcome = Product::new(&link.url(&url), &session).restore(&to);
    let took = outcome.expect("the restore").took;
    context.took(&format!("link.{ms}.account.product"), took);
    remove(&to);
    remove(&session);

    let url = context.database();
    let upload = node::sidecar(&url, account, "upload", 16);
    process::run(upload, PATIENCE).expect("the sidecar uploads one account");
    let restore = node::sidecar(&link.url(&url), &to, "restore", 16);
    let name = format!("link.{ms}.account.sidecar16");
    match process::run(restore, PATIENCE) {
        Ok(outcome) => context.took(&name, outcome.took),
        Err(GaveUp(why)) => context.results.note(&name, why),
    }
    let _ = std::fs::remove_dir_all(&to);
}
