//! A gateway for the tests that keeps its state in memory which a file is mapped into, as embedded
//! databases do.
//!
//! `mapped FILE` makes a file of one page and maps it, closes it, and stores a number of eight digits
//! at its start every few milliseconds, for half a second. Then it stores `THISTIME`, says so, and
//! waits. TERM has it store `LASTONE!` and end.

use std::error::Error;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

const PAGE: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.thread_block()?;
    let path = std::env::args_os().nth(1).ok_or("it needs a file")?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.set_len(PAGE as u64)?;
    // SAFETY: a new mapping at an address of the kernel's choice, of a file that is as long.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().into());
    }
    drop(file);
    let store = |text: &str| {
        for (at, byte) in text.bytes().enumerate() {
            // SAFETY: within the page that is mapped above, which nobody else in this process has.
            unsafe { memory.cast::<u8>().add(at).write_volatile(byte) };
        }
    };
    for number in 0..50 {
        store(&format!("{number:08}"));
        thread::sleep(Duration::from_millis(10));
    }
    store("THISTIME");
    println!("the gateway has stored");
    stop.wait()?;
    store("LASTONE!");
    Ok(())
}
