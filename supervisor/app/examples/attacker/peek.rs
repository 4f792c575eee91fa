//! Kills the watcher again and again, and looks for a secret in whatever `/proc` shows of its next
//! one and of init: environment, arguments and memory, by descriptors that are opened as early as
//! can be and kept, and by tracing.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use super::Score;
use super::helpers::{helpers, init, send};

/// What is opened of a process, and read again and again.
const SEEN: [&str; 4] = ["environ", "cmdline", "auxv", "maps"];
/// How much of a process's memory is read at most.
const MEMORY: usize = 64 << 20;

/// Arguments: the secret, written backwards, since init's own arguments end with these.
pub(super) fn run(arguments: &[String], until: Instant) -> anyhow::Result<Score> {
    let [backwards] = arguments else {
        anyhow::bail!("peek takes a secret, written backwards");
    };
    let secret: Vec<u8> = backwards.bytes().rev().collect();
    let mut score = Score::default();
    look(&mut Opened::of(init()), &secret, &mut score);
    while Instant::now() < until {
        for pid in helpers() {
            score.tried += u64::from(send(pid, libc::SIGKILL));
        }
        // The next one may be put off for seconds; its very first moment is what is wanted.
        let next = Instant::now() + Duration::from_secs(2);
        let mut last = 0;
        while Instant::now() < until.min(next) {
            let Some(pid) = newest(last) else { continue };
            last = pid;
            let mut opened = Opened::of(pid);
            trace(pid, &mut score);
            // As it comes to know more, what was opened early shows more.
            for _ in 0..40 {
                look(&mut opened, &secret, &mut score);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    Ok(score)
}

/// A helper with another process id than `last`.
fn newest(last: i32) -> Option<i32> {
    helpers().into_iter().find(|pid| *pid != last)
}

struct Opened {
    pid: i32,
    files: Vec<(&'static str, File)>,
    memory: Option<File>,
}

impl Opened {
    fn of(pid: i32) -> Self {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}")).ok();
        Self {
            pid,
            memory: open("mem"),
            files: SEEN
                .iter()
                .filter_map(|name| Some((*name, open(name)?)))
                .collect(),
        }
    }
}

fn look(opened: &mut Opened, secret: &[u8], score: &mut Score) {
    let pid = opened.pid;
    let mut maps = Vec::new();
    for (name, file) in &opened.files {
        let content = read(file);
        tell(name, pid, &content, secret, score);
        if *name == "maps" {
            maps = content;
        }
    }
    if let Some(memory) = &opened.memory {
        let mut left = MEMORY;
        for (start, length) in private_areas(&maps) {
            let mut content = vec![0; length.min(left)];
            left -= content.len();
            if let Ok(got) = memory.read_at(&mut content, start) {
                tell("mem", pid, &content[..got], secret, score);
            }
        }
    }
    // Descriptors, such as that of a pipe or of a file that is deleted.
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    for fd in descriptors.into_iter().flatten().flatten() {
        let without_waiting = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(fd.path());
        let mut content = vec![0; 64 << 10];
        if let Ok(got) = without_waiting.and_then(|mut file| file.read(&mut content)) {
            tell("fd", pid, &content[..got], secret, score);
        }
    }
}

fn read(file: &File) -> Vec<u8> {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(got @ 1..) = file.read_at(&mut part, all.len() as u64) {
        all.extend_from_slice(&part[..got]);
    }
    all
}

/// Areas that can be written to, as `maps` lists them.
fn private_areas(maps: &[u8]) -> Vec<(u64, usize)> {
    let text = String::from_utf8_lossy(maps);
    let area = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (
            u64::from_str_radix(start, 16).ok()?,
            u64::from_str_radix(end, 16).ok()?,
        );
        let length = usize::try_from(end - start).ok()?;
        rest.starts_with("rw").then_some((start, length))
    };
    text.lines().filter_map(area).collect()
}

fn tell(what: &str, pid: i32, content: &[u8], secret: &[u8], score: &mut Score) {
    if content.windows(secret.len()).any(|part| part == secret) {
        score.achieved += 1;
        if score.achieved < 20 {
            println!("the secret is in {what} of {pid}");
        }
    }
}

/// Attaches, and lets go again.
fn trace(pid: i32, score: &mut Score) {
    // SAFETY: neither call touches memory of ours.
    unsafe {
        if libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) == 0 {
            score.achieved += 1;
            println!("attached to {pid}");
            send(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
        }
    }
}
