//! The HTTP port, while those who answer on it come and go.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::life::{LOOP, Life, Setup, both, children, send};

fn watcher(life: &Life) -> Option<i32> {
    let is_watcher = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"sessionkeep\0watch\0"))
    };
    children(life.pid()).into_iter().find(is_watcher)
}

fn ask(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_hundred_requests_a_second_lose_none_across_killed_watchers() {
    for run_as in both() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = free.local_addr().expect("address").port();
        drop(free);
        let mut life = Setup::file_mode(*run_as)
            .env("SESSIONKEEP_HTTP_PORT", port.to_string())
            .script(LOOP);
        life.until_up();
        let (answered, mut requests) = (Arc::new(AtomicUsize::new(0)), Vec::new());
        let began = Instant::now();
        for nth in 0..300_usize {
            let at = Duration::from_millis(10) * u32::try_from(nth).expect("small");
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            // The second one comes back only after a second, and a hundred requests wait for it.
            // A request that is just being answered dies with who answers it, in any design: so
            // the kill comes when all that were sent have their answers.
            if nth == 60 || nth == 120 {
                life.until("answered", |_| answered.load(Ordering::SeqCst) == nth);
                send(watcher(&life).expect("a watcher"), libc::SIGKILL);
            }
            let answered = Arc::clone(&answered);
            requests.push(std::thread::spawn(move || {
                let answer = ask(port);
                answered.fetch_add(1, Ordering::SeqCst);
                answer
            }));
        }
        for request in requests {
            let answer = request.join().expect("no panic").expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}\n{}", life.log());
        }
        assert_eq!(
            life.log().matches("watcher died").count(),
            2,
            "{}",
            life.log()
        );
        life.signal(libc::SIGTERM);
        assert_eq!(life.code(), 143, "{}", life.log());
    }
}
