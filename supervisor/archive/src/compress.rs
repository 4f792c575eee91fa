//! Compresses frames, beside whoever fills them.
//!
//! A commit of few frames is compressed where it is built. Where there are more, a thread compresses
//! each while the next is filled: reading a directory and compressing what was read take about as
//! long as each other.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::format::ZSTD_LEVEL;

/// What compressing takes; the tables are on the heap.
const STACK: usize = 256 << 10;

/// So many frames are compressed before a thread is worth starting: a commit of everyday load has
/// one or two.
const FRAMES_WITHOUT: u32 = 3;

/// A frame, before and after.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// The content.
    pub(super) raw: Vec<u8>,
    /// What it became.
    pub(super) packed: Vec<u8>,
}

impl Job {
    fn compress(&mut self, zstd: &mut Compressor<'_>) -> io::Result<()> {
        self.packed.clear();
        self.packed.reserve(compress_bound(self.raw.len()));
        zstd.compress_to_buffer(&self.raw, &mut self.packed)
            .map(drop)
    }
}

/// Compresses one frame at a time.
pub(super) struct Frames {
    /// Until there is a thread.
    zstd: Option<Compressor<'static>>,
    thread: Option<Thread>,
    /// A frame that was compressed at once, or whose thread could not be had.
    ready: Option<io::Result<Job>>,
    /// How many frames were compressed without a thread.
    without: u32,
}

struct Thread {
    jobs: SyncSender<Job>,
    done: Receiver<io::Result<Job>>,
}

impl Frames {
    /// # Errors
    /// If zstd cannot allocate.
    pub(super) fn new() -> io::Result<Self> {
        let mut zstd = Compressor::new(ZSTD_LEVEL)?;
        // Four bytes a frame, so that moving a piece from pack to pack never moves damage.
        zstd.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self {
            zstd: Some(zstd),
            thread: None,
            ready: None,
            without: 0,
        })
    }

    /// Begins to compress a frame, beside the caller where `more` are to come. The one before it
    /// must have been taken by [`Frames::end`].
    pub(super) fn begin(&mut self, mut job: Job, more: bool) {
        if more && self.thread.is_none() && self.without >= FRAMES_WITHOUT {
            self.start();
        }
        match (&self.thread, &mut self.zstd) {
            (Some(thread), _) => {
                if thread.jobs.send(job).is_err() {
                    self.ready = Some(Err(gone()));
                }
            }
            (None, Some(zstd)) => {
                let done = job.compress(zstd);
                self.without += 1;
                self.ready = Some(done.map(|()| job));
            }
            (None, None) => self.ready = Some(Err(gone())),
        }
    }

    /// The frame that was begun, compressed.
    ///
    /// # Errors
    /// Zstd's.
    pub(super) fn end(&mut self) -> io::Result<Job> {
        if let Some(ready) = self.ready.take() {
            return ready;
        }
        match &self.thread {
            Some(thread) => thread.done.recv().unwrap_or_else(|_| Err(gone())),
            None => Err(gone()),
        }
    }

    /// Starts the thread; where that cannot be had, everything goes on without.
    fn start(&mut self) {
        let (jobs, todo) = sync_channel::<Job>(1);
        let (finished, done) = sync_channel(1);
        let (hand_over, take_over) = sync_channel::<Compressor<'static>>(1);
        let work = move || {
            let Ok(mut zstd) = take_over.recv() else {
                return;
            };
            for mut job in todo {
                let done = job.compress(&mut zstd);
                if finished.send(done.map(|()| job)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("compress".into())
            .stack_size(STACK)
            .spawn(work);
        match (thread, self.zstd.take()) {
            (Ok(_), Some(zstd)) => {
                if hand_over.send(zstd).is_ok() {
                    self.thread = Some(Thread { jobs, done });
                }
            }
            (_, zstd) => self.zstd = zstd,
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that compresses is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_same_with_and_without_a_thread() {
        let raw: Vec<u8> = (0..100_000u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8)
            .collect();
        let mut frames = Frames::new().expect("allocates");
        let mut packed = Vec::new();
        for more in [false, true, true, true, true, false] {
            let job = Job {
                raw: raw.clone(),
                ..Job::default()
            };
            frames.begin(job, more);
            packed.push(frames.end().expect("compresses").packed);
        }
        assert!(frames.thread.is_some());
        assert!(packed.iter().all(|other| *other == packed[0]));
        let unpacked = zstd::bulk::decompress(&packed[0], raw.len()).expect("whole");
        assert_eq!(unpacked, raw);
    }
}
