//! The QR code, through the gateway's own API.

use super::ask::get;
use super::keeper::World;
use super::waha::{KEY, Waha};

#[test]
fn the_code_is_shown_while_it_is_to_be_scanned_and_only_then() {
    let world = World::sqlite();
    let waha = Waha::start(&world, |setup| setup.env("SESSIONS", "default,sales"));
    waha.wait_until_session("noweb/default", "SCAN_QR_CODE");
    let answer = get(waha.port, "/sessions/default/qr", &[]);
    assert_eq!(
        (answer.code, answer.header("content-type")),
        (200, Some("image/png"))
    );
    assert!(answer.body.starts_with(b"\x89PNG\r\n"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    for path in [
        "/sessions/nobody/qr",
        "/sessions/..%2F..%2Fping/qr",
        "/sessions/%00/qr",
    ] {
        assert_eq!(get(waha.port, path, &[]).code, 404, "{path}");
    }
    waha.tell("default", "scan");
    waha.wait_until_session("noweb/default", "WORKING");
    assert_eq!(get(waha.port, "/sessions/default/qr", &[]).code, 404);
    assert_eq!(get(waha.port, "/sessions/sales/qr", &[]).code, 200);
    world.wait_until_saved();
    let ended = waha.life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(!ended.log.contains(KEY), "the key is in the log");
}

#[test]
fn what_is_no_picture_is_never_passed_on() {
    let world = World::sqlite();
    let waha = Waha::start(&world, |setup| setup.env("HOSTILE", "1"));
    waha.wait_until_session("noweb/default", "SCAN_QR_CODE");
    let answer = get(waha.port, "/sessions/default/qr", &[]);
    assert_eq!(answer.code, 502);
    assert!(!answer.text().contains('<'), "{}", answer.text());
    assert_eq!(waha.life.stop().code, 0);
}

#[test]
fn a_key_that_waha_does_not_take_is_said_with_what_to_do() {
    let world = World::sqlite();
    let waha = Waha::start(&world, |setup| {
        setup.env("SESSIONKEEP_GATEWAY_API_KEY", "another")
    });
    super::keeper::wait_until("it is said", || {
        let status = get(waha.port, "/status", &[]).json();
        status["sessions_problem"]
            .as_str()
            .is_some_and(|text| text.contains("WAHA_API_KEY"))
    });
    assert_eq!(
        get(waha.port, "/health", &[]).code,
        200,
        "that is no reason to be unhealthy"
    );
    assert_eq!(waha.life.stop().code, 0);
}
