//! `sessionkeep health`: for a container's HEALTHCHECK, in an image without curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::{self, Flags, HttpSettings};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 if all is well, and with 1 and the reason in one line if not.
A start that takes its time is well; --ready tells it from a gateway that is up.
It finds the port in the environment and in sessionkeep.yaml, so set http.port
there rather than by a flag of `run`.

Example, in a Dockerfile:
  HEALTHCHECK --interval=15s --timeout=5s CMD [\"sessionkeep\",\"health\"]")]
pub(super) struct Args {
    /// Print the answer as it is, in JSON
    #[arg(long)]
    json: bool,
    /// Ask for more: exit with 1 also while it starts, or waits for another instance
    #[arg(long)]
    ready: bool,
}

/// For the whole of it: Docker's own limit is 30 s, and other hosts' a few.
const LIMIT: Duration = Duration::from_secs(3);
/// The status of many sessions with many incidents is some hundred kilobytes; what is longer is not
/// ours.
const ANSWER_MAX: u64 = 4 << 20;

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let http = match config::load(flags) {
        Ok(loaded) => loaded.settings.http,
        // What else is wrong is for `run` to say; here only the port matters.
        Err(errors) => match errors.partial() {
            Some(settings) => settings.http.clone(),
            None => return Err(errors.into()),
        },
    };
    match ask(&http, "/health") {
        Ok(answer) => {
            let line = match args.json {
                true => answer.body.trim_end().to_owned(),
                false => answer.told(),
            };
            super::print(&format!("{line}\n"))?;
            let well = answer.status == 200 && (!args.ready || answer.is_ready());
            Ok(ExitCode::from(u8::from(!well)))
        }
        Err(error) => {
            let line = format!("unhealthy: {error:#}");
            match args.json {
                true => super::print_json(&serde_json::json!({ "error": line }))?,
                false => super::print(&format!("{line}\n"))?,
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Where it listens, as seen from inside the same container: the first of these that takes a connection.
fn addresses(http: &HttpSettings) -> Vec<SocketAddr> {
    let (four, six) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let ips: &[IpAddr] = match http.bind {
        None => &[four, six],
        Some(IpAddr::V4(ip)) if ip.is_unspecified() => &[four],
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => &[six],
        Some(ip) => &[ip],
    };
    let at = |ip: &IpAddr| SocketAddr::new(*ip, http.port);
    ips.iter().map(at).collect()
}

/// The failure told is that of the first address, which is there nearly always.
fn connect(addresses: &[SocketAddr]) -> anyhow::Result<(TcpStream, SocketAddr)> {
    let mut failure = None;
    for address in addresses {
        match TcpStream::connect_timeout(address, LIMIT) {
            Ok(stream) => return Ok((stream, *address)),
            Err(error) => {
                let told =
                    || anyhow::Error::new(error).context(format!("failed to connect to {address}"));
                failure.get_or_insert_with(told);
            }
        }
    }
    Err(failure.expect("there is at least one address"))
}

/// What the running instance answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks the running instance for `path`, with the token where there is one.
pub(super) fn ask(http: &HttpSettings, path: &str) -> anyhow::Result<Answer> {
    if http.port == 0 {
        bail!("nobody answers, because http.port is off");
    }
    let deadline = Instant::now() + LIMIT;
    let (mut stream, address) = connect(&addresses(http))?;
    let authorization = match (&http.token, &http.password) {
        (Some(token), _) => format!("Authorization: Bearer {}\r\n", token.expose()),
        (None, Some(password)) => {
            let pair = format!("{}:{}", http.username, password.expose());
            format!("Authorization: Basic {}\r\n", STANDARD.encode(pair))
        }
        (None, None) => String::new(),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n{authorization}Connection: close\r\n\r\n"
    );
    stream.set_write_timeout(Some(LIMIT))?;
    stream
        .write_all(request.as_bytes())
        .with_context(|| format!("failed to ask {address}"))?;
    let answer = read(&mut stream, deadline)
        .with_context(|| format!("failed to read the answer of {address}"))?;
    parse(&answer).with_context(|| format!("failed to understand the answer of {address}"))
}

/// Reads until the other side closes, or until the body has the length that was announced.
fn read(stream: &mut TcpStream, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while (answer.len() as u64) < ANSWER_MAX && !is_whole(&answer) {
        // A timeout of zero would mean none at all.
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut chunk)? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(answer)
}

fn split(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((
        std::str::from_utf8(&answer[..end]).ok()?,
        &answer[end + 4..],
    ))
}

pub(crate) fn is_whole(answer: &[u8]) -> bool {
    split(answer).is_some_and(|(head, body)| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, length)| length.trim().parse::<usize>().ok())
            .is_some_and(|length| body.len() >= length)
    })
}

pub(crate) fn parse(answer: &[u8]) -> anyhow::Result<Answer> {
    let (head, body) = split(answer).context("it ends before its body")?;
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .context("it is no HTTP")?;
    let body = String::from_utf8_lossy(body).into_owned();
    Ok(Answer { status, body })
}

impl Answer {
    /// Whether the gateway is up, and not merely on its way.
    pub(crate) fn is_ready(&self) -> bool {
        serde_json::from_str(&self.body).is_ok_and(|body: serde_json::Value| body["status"] == "ok")
    }

    /// The answer in one line: its reason, if it gives one.
    pub(crate) fn told(&self) -> String {
        let verdict = if self.status == 200 {
            "healthy"
        } else {
            "unhealthy"
        };
        let json: Option<serde_json::Value> = serde_json::from_str(&self.body).ok();
        let reason = match &json {
            Some(json) => ["reason", "error", "status"]
                .iter()
                .find_map(|field| json.get(field)?.as_str().filter(|text| !text.is_empty()))
                .unwrap_or_default(),
            None => self.body.lines().next().unwrap_or_default(),
        };
        let reason: String = reason
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect();
        match (reason.is_empty(), self.status) {
            (false, _) => format!("{verdict}: {reason}"),
            (true, 200) => verdict.to_owned(),
            (true, status) => format!("{verdict}: answered {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request with these bytes, and then keeps the connection for as long as the
    /// other side does.
    fn server(answer: &'static str) -> HttpSettings {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /health HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).expect("written");
            let _ = stream.read(&mut [0]);
        });
        HttpSettings {
            port,
            ..config::defaults().http
        }
    }

    #[test]
    fn a_200_is_healthy_and_its_length_ends_the_wait() {
        let http = server("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}");
        let answer = ask(&http, "/health").expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.told(), "healthy: ok");
    }

    #[test]
    fn a_start_is_well_but_not_ready() {
        let body = |status: &str| Answer {
            status: 200,
            body: format!("{{\"status\":\"{status}\",\"reason\":\"\"}}"),
        };
        assert_eq!(body("starting").told(), "healthy: starting");
        assert!(!body("starting").is_ready());
        assert!(!body("standby").is_ready());
        assert!(body("ok").is_ready());
    }

    #[test]
    fn a_503_gives_its_reason_in_one_line() {
        let http = server(
            "HTTP/1.1 503 No\r\ncontent-length: 31\r\n\r\n{\"reason\":\"store: no\\n answer\" }",
        );
        assert_eq!(
            ask(&http, "/health").expect("an answer").told(),
            "unhealthy: store: no answer"
        );
    }

    #[test]
    fn a_server_that_says_nothing_ends_in_time() {
        let http = server("HTTP/1.1 200 OK\r\n");
        let begun = Instant::now();
        assert!(ask(&http, "/health").is_err());
        assert!(begun.elapsed() < LIMIT * 3);
    }

    #[test]
    fn nobody_there_off_and_nonsense_are_each_told_apart() {
        let off = HttpSettings {
            port: 0,
            ..config::defaults().http
        };
        assert!(
            format!("{:#}", ask(&off, "/health").expect_err("off")).contains("http.port is off")
        );
        let closed = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = closed.local_addr().expect("bound").port();
        drop(closed);
        let gone = ask(&HttpSettings { port, ..off }, "/health").expect_err("gone");
        assert!(format!("{gone:#}").contains("failed to connect"));
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn an_unspecified_address_is_asked_on_loopback() {
        let at = |bind: &str| {
            let bind = Some(bind.parse().expect("an address"));
            let found = addresses(&HttpSettings {
                port: 1,
                bind,
                ..config::defaults().http
            });
            assert_eq!(found.len(), 1, "{bind:?}");
            found[0].to_string()
        };
        assert_eq!(at("0.0.0.0"), "127.0.0.1:1");
        assert_eq!(at("::"), "[::1]:1");
        assert_eq!(at("10.0.0.7"), "10.0.0.7:1");
    }
}
