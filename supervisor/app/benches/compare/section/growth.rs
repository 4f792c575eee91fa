//! What grows with what: ten times the files, and a hundred times the history.

use std::thread;
use std::time::{Duration, Instant};

use super::w1::uploaded;
use super::{Context, remove};
use crate::measure::median;
use crate::server;
use crate::subject::limits;
use crate::subject::product::{Product, memory};
use crate::workload::baileys;
use crate::writer::Task;

const PATIENCE: Duration = Duration::from_secs(300);
/// How many restores of each history are timed, for each round of the scale: one takes no longer
/// than the starting of a few processes, which no two times are alike.
const RESTORES: u64 = 10;
/// As many of the newest commits as there are from one checkpoint of the long history to the next,
/// about.
const CYCLE: u64 = 150;

pub(crate) fn run(context: &mut Context<'_>) {
    files(context);
    history(context);
}

fn files(context: &mut Context<'_>) {
    for (factor, name) in [(1, "x1"), (10, "x10")] {
        let url = context.database();
        let source = context.path("source");
        let count = context.scale.accounts * factor;
        baileys::accounts(&source, count);
        context.put(
            &format!("growth.{name}.files"),
            (count * baileys::FILES) as f64,
        );
        let product = Product::new(&url, &source);
        let (running, took) = uploaded(&product);
        context.took(&format!("growth.{name}.upload"), took);
        // Where it was large, whatever follows the upload takes a while.
        thread::sleep(context.scale.settle * 2);
        let (cpu, begun) = (running.cpu(), Instant::now());
        thread::sleep(Duration::from_secs(context.scale.idle));
        let share = (running.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
        context.put(&format!("growth.{name}.idle.cpu"), share * 100.0);
        let resident = memory(&running);
        let both = resident.init_pss + resident.watcher_pss;
        context.put(&format!("growth.{name}.idle.pss"), both as f64);
        let peak = resident.watcher_peak_rss;
        context.put(&format!("growth.{name}.rss.upload"), peak as f64);
        running.stop(PATIENCE);
        let (mut restores, mut writes, mut peak) = (Vec::new(), Vec::new(), 0);
        for _ in 0..context.scale.rounds.min(3) {
            let to = context.path("restored");
            let outcome = product.restore(&to).expect("the restore");
            restores.push(outcome.took.as_secs_f64());
            peak = peak.max(outcome.peak_rss);
            remove(&to);
            let (contents, _) = limits::read(&source);
            writes.push(limits::write(&contents, &to).as_secs_f64());
            drop(contents);
            remove(&to);
        }
        context.put(&format!("growth.{name}.restore"), median(&restores));
        context.put(&format!("growth.{name}.plain"), median(&writes));
        context.put(&format!("growth.{name}.rss.restore"), peak as f64);
        remove(&source);
    }
}

fn history(context: &mut Context<'_>) {
    let archives = [("short", 1), ("long", 100)].map(|(name, factor)| {
        let url = context.database();
        let dir = context.w5(name);
        // Each write a commit of its own.
        let product = Product::new(&url, &dir).set("sync.quiet=1ms");
        let (running, _) = uploaded(&product);
        let count = context.scale.history * factor;
        let log = context.path(&format!("{name}.log"));
        let task = Task::Steady {
            count,
            pause_ms: 12,
        };
        task.start(&dir, &log).finish();
        thread::sleep(Duration::from_secs(1));
        running.stop(PATIENCE);
        let commits = server::count(&url, "commits");
        context.put(&format!("growth.{name}.commits"), commits as f64);
        let to = context.path("restored");
        product.restore(&to).expect("the restore");
        crate::workload::assert_same(&dir, &to);
        remove(&to);
        (name, product, commits)
    });
    // In turn, since the two are compared; and each time of another commit, since a restore takes
    // longer the more commits there are after the checkpoint that it begins with.
    let rounds = context.scale.rounds as u64 * RESTORES;
    let mut samples = archives.each_ref().map(|_| Vec::new());
    for round in 0..rounds {
        for ((_, product, commits), samples) in archives.iter().zip(&mut samples) {
            let seq = commits - (commits - 1).min(CYCLE) * round / rounds;
            let to = context.path("restored");
            let outcome = product.restore_commit(seq, &to).expect("the restore");
            samples.push(outcome.took.as_secs_f64());
            remove(&to);
        }
    }
    for ((name, ..), samples) in archives.iter().zip(&samples) {
        context.put(&format!("growth.{name}.restore"), median(samples));
    }
}
