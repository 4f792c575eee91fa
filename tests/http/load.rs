//! Slow clients and many of them: whoever has a real question gets an answer, and changes are saved.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::ask::{connect, exchange, get};
use super::keeper::{IDLE, World, free_port, wait_until};

#[test]
fn a_thousand_connections_that_say_nothing_keep_nobody_out() {
    let world = World::sqlite();
    let port = free_port();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    let mut silent: Vec<TcpStream> = Vec::new();
    for n in 0..1000 {
        let mut stream = connect(port).expect("connect");
        // Half of them begin a request that never ends.
        if n % 2 == 0 {
            stream
                .write_all(b"GET /health HTTP/1.1\r\nHost: lo")
                .expect("write");
        }
        silent.push(stream);
        if n % 100 == 0 {
            assert_eq!(get(port, "/health", &[]).code, 200);
        }
    }
    assert_eq!(get(port, "/health", &[]).code, 200);
    world.write("a.json", "[1]");
    world.wait_until_saved();
    let watcher = life.process("watcher");
    let open = std::fs::read_dir(format!("/proc/{watcher}/fd"))
        .expect("its descriptors")
        .count();
    assert!(open < 400, "{open} descriptors are open");
    drop(silent);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn who_watches_and_never_reads_piles_nothing_up() {
    let world = World::sqlite();
    let port = free_port();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    let watchers: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = connect(port).expect("connect");
            write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("ask");
            stream
        })
        .collect();
    // Those beyond the limit are told.
    wait_until("one is refused", || {
        let request = b"GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut stream = connect(port).expect("connect");
        stream.write_all(request).expect("ask");
        let mut head = [0; 12];
        stream.read_exact(&mut head).is_ok() && head.ends_with(b"503")
    });
    for n in 0..20 {
        world.write("a.json", format!("[{n}]"));
        world.wait_until_saved();
    }
    drop(watchers);
    wait_until("there is room again", || {
        let mut stream = connect(port).expect("connect");
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("ask");
        let mut head = [0; 12];
        stream.read_exact(&mut head).is_ok() && head.ends_with(b"200")
    });
    assert_eq!(life.stop().code, 0);
}

#[test]
fn under_a_storm_of_requests_changes_are_saved_and_every_answer_is_right() {
    let world = World::sqlite();
    let port = free_port();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let request =
                        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                    let answer = exchange(port, request).expect("an answer");
                    assert_eq!(answer.code, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _end = Ends(&over);
        for n in 0..20 {
            world.write("a.json", format!("[{n}]"));
            world.wait_until_saved();
        }
        wait_until("a thousand were answered", || {
            answered.load(Ordering::Relaxed) >= 1000
        });
    });
    assert_eq!(life.stop().code, 0);
}

/// Also where a test fails: the others would never end.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
