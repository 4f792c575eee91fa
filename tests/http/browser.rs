//! The dashboard in a real headless Chromium: from the first QR code to an outage and its end, at the
//! widths of a desk and of a phone, light and dark, with an accessibility check (axe) of each.
//! Screenshots are left in `target/screenshots/`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::keeper::{World, free_port, wait_until};
use super::line::Line;
use super::proxy::Mode;
use super::small::Small;
use super::waha::{Waha, node, script};

const PASSWORD: &str = "canary-of-the-password";

struct Browser {
    child: Child,
    say: ChildStdin,
    hear: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// `None` where there is no Chromium, which is said.
    fn start() -> Option<Self> {
        let places = [
            "/usr/bin/chromium",
            "/usr/bin/chromium-browser",
            "/usr/bin/google-chrome",
        ];
        let Some(chromium) = places.into_iter().find(|place| Path::new(place).exists()) else {
            crate::policy::cannot_run("there is no Chromium (Debian: chromium)");
            return None;
        };
        let shots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots");
        std::fs::create_dir_all(&shots).expect("mkdir");
        let mut child = Command::new(node())
            .arg(script("page/look.mjs"))
            .env("BROWSER", chromium)
            .env("SHOTS", shots)
            .env("USER_NAME", "admin")
            .env("PASSWORD", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the browser");
        Some(Self {
            say: child.stdin.take().expect("piped"),
            hear: BufReader::new(child.stdout.take().expect("piped")).lines(),
            child,
        })
    }

    #[track_caller]
    fn tell(&mut self, command: &str) {
        writeln!(self.say, "{command}").expect("it listens");
        let answer = self.hear.next().expect("it answers").expect("text");
        assert_eq!(answer, "ok", "{command}");
    }

    fn end(self) {
        let Self { mut child, say, .. } = self;
        drop(say);
        assert!(child.wait().expect("its end").success());
    }
}

#[test]
fn a_person_sees_the_code_then_the_login_then_an_outage_and_its_end() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let world = World::mongo();
    let line = Line::to(&world);
    let port = free_port();
    let waha = Waha::start_on(&world, port, |setup| {
        setup
            .env("MONGO_URL", line.url.clone())
            .env("WAHA_DASHBOARD_PASSWORD", PASSWORD)
            .set("alarm.lag=3s")
    });
    browser.tell(&format!("open http://127.0.0.1:{port}/"));
    browser.tell("see A QR code is waiting to be scanned");
    browser.tell("code");
    browser.tell("keyboard");
    browser.tell("look 1-first-boot");
    waha.tell("default", "scan");
    browser.tell("see All is well");
    browser.tell("see Logged in");
    browser.tell("see Everything saved");
    browser.tell("look 2-logged-in");
    line.set(Mode::Refuse);
    world.write("noweb/default/key.json", "[1]");
    browser.tell("see The database does not answer");
    browser.tell("see What is wrong");
    // What the driver says stands there once, and what is to be typed between no backticks.
    browser.tell("once changes cannot be saved: ");
    browser.tell("gone `");
    browser.tell("look 3-outage");
    line.set(Mode::Pass);
    browser.tell("see All is well");
    browser.tell("gone What is wrong");
    browser.tell("look 4-recovered");
    browser.tell("quiet");
    browser.end();
    wait_until("it is all saved", || {
        world
            .stored()
            .is_some_and(|tree| tree.content("noweb/default/key.json").is_some())
    });
    assert_eq!(waha.life.stop().code, 0);
}

#[test]
fn a_person_is_led_to_the_first_login_and_told_of_a_full_disk() {
    let world = World::sqlite();
    // No larger than what the alarm asks for on a large disk.
    let Some(_small) = Small::mount(&world.dir(), "size=48m") else {
        return;
    };
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let waha = Waha::start(&world, |setup| {
        setup
            .env("SESSIONS", "")
            .env("WAHA_DASHBOARD_PASSWORD", PASSWORD)
    });
    browser.tell(&format!("open http://127.0.0.1:{}/", waha.port));
    browser.tell("see No number is linked yet");
    browser.tell("see Add or start a session in WAHA");
    browser.tell(&format!("link :{}/dashboard", waha.gateway));
    browser.tell("look 5-no-number");
    waha.tell("default", "PASSKEY_REQUIRED");
    browser.tell("see A passkey is asked for");
    browser.tell("see Waiting for a passkey");
    waha.tell("default", "PASSKEY_CONFIRMATION_REQUIRED");
    browser.tell("see Open WhatsApp on the phone and confirm");
    waha.tell("default", "SCAN_QR_CODE");
    browser.tell("see pairing code");
    waha.tell("default", "scan");
    browser.tell("see All is well");
    // As under load: more commits in a moment than there are rows.
    for n in 0..25 {
        world.write("noweb/default/key.json", format!("[{n}]"));
        world.wait_until_stored("noweb/default/key.json", format!("[{n}]"));
    }
    browser.tell("see  to ");
    browser.tell("rows 15");
    browser.tell("look 6-busy");

    // Beside what is saved: the store is not to grow.
    let filler = world.dir().join(".sessionkeep/replaced/filler");
    std::fs::create_dir_all(filler.parent().expect("a parent")).expect("mkdir");
    let fill = |mebibytes: usize| std::fs::write(&filler, vec![1; mebibytes << 20]);
    fill(44).expect("it is smaller than the disk");
    browser.tell("see The disk is nearly full");
    browser.tell("see are free. See below for what to do.");
    browser.tell("gone All is well");
    browser.tell("look 7-disk-full");
    std::fs::remove_file(&filler).expect("remove");
    browser.tell("see All is well");
    browser.tell("gone What is wrong");
    browser.tell("quiet");
    browser.end();
    assert_eq!(waha.life.stop().code, 0);
}
