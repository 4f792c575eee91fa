//! Whom the login is sent to: a server that shows a certificate for its host, of a CA that is known.
//! Everybody else is told nothing, and the operator what to do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};

use super::certificates::{Authority, Listener};
use super::keeper::{IDLE, World, free_port, wait_until};
use super::mongod::Mongod;

/// User and password, which nobody may get to see who has not shown a certificate.
const USER: &str = "canary-user";
const PASSWORD: &str = "canary-word";

fn url(port: u16, options: &str) -> String {
    format!("mongodb://{USER}:{PASSWORD}@127.0.0.1:{port}/db?tls=true{options}")
}

fn trusting(authority: &Authority) -> String {
    format!("&tlsCAFile={}", authority.file().display())
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes
        .windows(part.len())
        .any(|some| some == part.as_bytes())
}

/// Asks the store for something, and gives all that was said.
fn ask(url: &str) -> (Output, String) {
    let output = World::sqlite().command_at(url, &["log"]);
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    assert!(!said.contains("canary"), "{said}");
    (output, said)
}

#[track_caller]
fn assert_refused(url: &str, reason: &str, next_step: &str) {
    let (output, said) = ask(url);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(reason), "no reason in: {said}");
    assert!(said.contains(next_step), "no next step in: {said}");
}

#[test]
fn a_server_is_used_whose_certificate_the_named_authority_signed() {
    let authority = Authority::new();
    let mongod = Mongod::start_with_tls(authority.sign("IP:127.0.0.1"));
    let options = format!("?tls=true{}", trusting(&authority));
    let world = World::at(mongod.url(&format!("db{options}")));
    let life = world.script(IDLE).ready();
    world.write("creds.json", "{}");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    // Without TLS it would not have been let in.
    let plain = World::at(mongod.url("db"));
    assert!(!plain.command(&["log"]).status.success());
}

#[test]
fn a_certificate_of_nobody_known_is_refused_with_the_next_step() {
    let authority = Authority::new();
    let mongod = Mongod::start_with_tls(authority.sign("IP:127.0.0.1"));
    assert_refused(
        &url(mongod.port(), ""),
        "UnknownIssuer",
        "with `tlsCAFile=/PATH/ca.pem` in the URL",
    );
    // Of the same name, as when a CA was made anew.
    let another = Authority::new();
    let target = url(mongod.port(), &trusting(&another));
    assert_refused(
        &target,
        "BadSignature",
        "name the file of the one that signed",
    );
}

#[test]
fn a_certificate_for_another_host_is_refused_with_the_next_step() {
    let authority = Authority::new();
    let mongod = Mongod::start_with_tls(authority.sign("DNS:elsewhere.example"));
    assert_refused(
        &url(mongod.port(), &trusting(&authority)),
        "not valid for name",
        "write the host in the URL as the certificate has it",
    );
}

#[test]
fn a_server_without_tls_is_refused_with_the_next_step() {
    assert_refused(
        &url(Mongod::shared().port(), ""),
        "tls handshake eof",
        "that TLS is on in the server",
    );
}

#[test]
fn whoever_shows_no_good_certificate_is_told_nothing() {
    let authority = Authority::new();
    let listen = |pem: &std::path::Path| {
        let listener = Listener::start(pem, free_port());
        wait_until("it listens", || {
            TcpStream::connect(("127.0.0.1", listener.port())).is_ok()
        });
        listener
    };
    // So that it is known that it would have been heard: the first thing that a server is told, which
    // has yet to answer before it is told who we are.
    let good = listen(&authority.sign("IP:127.0.0.1"));
    let (output, _) = ask(&url(good.port(), &trusting(&authority)));
    assert!(!output.status.success(), "it answers nothing");
    wait_until("it was told who asks", || {
        holds(&good.told(), "sessionkeep/")
    });

    let stranger = Authority::new();
    for pem in [
        authority.self_signed("IP:127.0.0.1"),
        authority.sign("DNS:elsewhere.example"),
        stranger.sign("IP:127.0.0.1"),
    ] {
        let listener = listen(&pem);
        let target = url(listener.port(), &trusting(&authority));
        assert_refused(&target, "invalid peer certificate", "certificate");
        assert_eq!(listener.told(), b"", "{}", pem.display());
    }
}

#[test]
fn a_server_that_answers_in_clear_hears_no_word_of_the_login() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let heard: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let hearing = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut first = [0; 4096];
            let length = stream.read(&mut first).unwrap_or(0);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let mut all = first[..length].to_vec();
            let _ = stream.read_to_end(&mut all);
            hearing.lock().expect("no panic").push(all);
        }
    });
    assert_refused(
        &url(port, ""),
        "InvalidContentType",
        "the server does not speak TLS on this port",
    );
    wait_until("a connection has ended", || {
        !heard.lock().expect("no panic").is_empty()
    });
    for all in &*heard.lock().expect("no panic") {
        assert_eq!(all.first(), Some(&0x16), "no TLS handshake: {all:?}");
        assert!(!holds(all, USER) && !holds(all, "sasl") && !holds(all, "admin"));
    }
}

#[test]
fn an_address_that_switches_the_check_off_is_refused_at_the_start() {
    for option in ["tlsInsecure", "tlsAllowInvalidCertificates"] {
        let address = url(Mongod::shared().port(), &format!("&{option}=true"));
        let (output, said) = ask(&address);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(
            said.contains(option) && said.contains("tlsCAFile="),
            "{said}"
        );

        let world = World::at(&*address);
        let ended = world.script(IDLE).run_to_end();
        assert_eq!(ended.code, 78, "{}", ended.log);
        assert!(ended.log.contains("tlsCAFile="), "{}", ended.log);
        assert!(!ended.log.contains("canary"), "{}", ended.log);
    }
}
