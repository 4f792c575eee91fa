//! The gateway of `waha.mjs` under the real program.

use std::path::Path;

use super::ask::try_get;
use super::keeper::{Life, Setup, World, free_port, wait_until};

/// What WAHA wants to be shown.
pub(crate) const KEY: &str = "canary-of-the-api-key";

/// A running life with that gateway.
pub(crate) struct Waha {
    pub(crate) life: Life,
    /// Where the program answers.
    pub(crate) port: u16,
    /// Where the gateway answers.
    pub(crate) gateway: u16,
}

/// The program that runs JavaScript.
pub(crate) fn node() -> String {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/bin/node");
    assert!(
        fetched.exists(),
        "{}: run tests/tools/fetch.sh",
        fetched.display()
    );
    fetched.to_str().expect("text").to_owned()
}

/// A file beside this one.
pub(crate) fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/http")
        .join(name);
    path.to_str().expect("text").to_owned()
}

impl Waha {
    /// Starts it; `more` may change how.
    pub(crate) fn start<'w>(world: &'w World, more: impl FnOnce(Setup<'w>) -> Setup<'w>) -> Self {
        Self::start_on(world, free_port(), more)
    }

    /// The same with the program on a port of one's choice.
    pub(crate) fn start_on<'w>(
        world: &'w World,
        port: u16,
        more: impl FnOnce(Setup<'w>) -> Setup<'w>,
    ) -> Self {
        let gateway = free_port();
        let setup = world
            .gateway(&[&node(), &script("waha.mjs")])
            .profile("waha")
            .env("PORT", gateway.to_string())
            .env("WAHA_API_KEY", KEY)
            .set(&format!("http.port={port}"));
        let mut life = more(setup).start();
        life.wait_for("the gateway listens");
        Self {
            life,
            port,
            gateway,
        }
    }

    /// Has the code of a session scanned (`scan`), the session logged out (`logout`), or its status be
    /// any other word.
    pub(crate) fn tell(&self, session: &str, what: &str) {
        let path = format!("/stand-in/{session}/{what}");
        let answer = try_get(self.gateway, &path, &[]);
        assert_eq!(answer.map(|answer| answer.code), Some(200), "{path}");
    }

    /// Waits until the program knows the session to be so.
    #[track_caller]
    pub(crate) fn wait_until_session(&self, key: &str, status: &str) {
        wait_until(&format!("{key} is {status}"), || {
            let answer = try_get(self.port, "/status", &[]);
            answer.is_some_and(|answer| answer.json()["sessions"][key]["gateway_status"] == status)
        });
    }
}
