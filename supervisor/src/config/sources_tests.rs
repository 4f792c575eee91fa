//! Precedence, aliases, switches, contradictions, and that no secret ever shows.

use super::*;
use crate::config::{Conflict, LogLevel, Secret, StoreChoice};

const CANARY: &str = "canary-4711";
const CANARY_URL: &str = "https://h/canary-4711";

/// One load, with everything it looks at.
#[derive(Default)]
struct Case {
    env: Vec<(&'static str, String)>,
    flags: Flags,
    file: Option<&'static str>,
}

thread_local! {
    static FILE: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

impl Case {
    fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    fn file(mut self, text: &'static str) -> Self {
        self.file = Some(text);
        self
    }

    fn set(mut self, pair: &str) -> Self {
        self.flags.set.push(Secret::new(pair));
        self
    }

    /// Settings for which a store is configured, so that its absence does not matter.
    fn sqlite() -> Self {
        Self::default().env("SESSIONKEEP_STORE", "sqlite:/store.db")
    }

    fn load(self) -> Result<Loaded, ConfigErrors> {
        FILE.set(self.file);
        let env = self.env.into_iter().map(|(n, v)| (n.into(), v.into()));
        resolve(
            &self.flags,
            env.collect(),
            Path::new("/work-dir"),
            |_, _| {
                Ok(FILE
                    .get()
                    .map(|text| ("sessionkeep.yaml".into(), text.into())))
            },
        )
    }

    #[track_caller]
    fn good(self) -> Settings {
        self.load().expect("these settings are good").settings
    }

    /// The error's lines.
    #[track_caller]
    fn bad(self) -> Vec<String> {
        let errors = self.load().expect_err("these settings are wrong");
        errors.problems.iter().map(Problem::to_string).collect()
    }
}

fn source(loaded: &Loaded, key: &str) -> String {
    let origin = loaded.origins.iter().find(|origin| origin.key == key);
    origin
        .expect("every setting has an origin")
        .source
        .to_string()
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "store:\n  wait: 2s\n  timeout: 2s\nstop.total: 20s\n";
    let loaded = Case::sqlite()
        .file(file)
        .env("SESSIONKEEP_STORE_WAIT", "3s")
        .env("SESSIONKEEP_STORE_TIMEOUT", "3s")
        .set("store.wait=4s")
        .load()
        .expect("good");
    let settings = &loaded.settings;
    assert_eq!(settings.store.wait.as_secs(), 4);
    assert_eq!(settings.store.timeout.as_secs(), 3);
    assert_eq!(settings.stop.total.as_secs(), 20);
    assert_eq!(settings.stop.flush.as_secs(), 3);
    assert_eq!(source(&loaded, "store.wait"), "--set");
    assert_eq!(
        source(&loaded, "store.timeout"),
        "SESSIONKEEP_STORE_TIMEOUT"
    );
    assert_eq!(source(&loaded, "stop.total"), "sessionkeep.yaml line 4");
    assert_eq!(source(&loaded, "stop.flush"), "default");
}

#[test]
fn every_setting_can_be_set_in_every_place() {
    for setting in registry::ALL {
        // `local` and so on: the last value that the documentation names is rarely the default.
        let value = match setting.key {
            "dir" => "/data/session",
            "archive" => "mine",
            "store.url" => "mongodb://h/db",
            "lease.renew" => "4s",
            "restore.owner" => "1000:1001",
            "stop.total" => "11s",
            "sync.quiet" => "70ms",
            "restart.attempts" => "7",
            "gateway.probe" => "http://127.0.0.1:1/x",
            "http.port" => "4000",
            "http.bind" => "0.0.0.0",
            "http.username" => "me",
            "webhook.url" | "heartbeat.url" => CANARY_URL,
            _ if setting.takes == registry::SECRET_TEXT => CANARY,
            key if setting.takes == "a time span" => match key {
                "stop.flush" => "2s",
                "lease.ttl" => "31s",
                _ => "33s",
            },
            _ => setting
                .takes
                .rsplit('`')
                .nth(1)
                .expect("the values are listed"),
        };
        let base = || match setting.key {
            "store.url" => Case::default(),
            "store.outage" => Case::sqlite().set("lease.ttl=30s"),
            _ => Case::sqlite(),
        };
        let yaml: &'static str =
            Box::leak(format!("{}: \"{value}\"\n", setting.key).into_boxed_str());
        let by_file = base().file(yaml).good();
        let by_flag = base().set(&format!("{}={value}", setting.key));
        let by_flag = match setting.key {
            "store.url" => by_flag.load().expect("good").settings,
            _ => by_flag.good(),
        };
        assert_eq!(by_file, by_flag, "{}", setting.key);
        let neutral = match setting.key {
            "store.url" => Case::sqlite().good(),
            _ => base().good(),
        };
        assert_ne!(by_file, neutral, "{}", setting.key);
        for name in registry::env_names(setting) {
            assert_eq!(base().env(name, value).good(), by_file, "{name}");
        }
    }
}

#[test]
fn every_flag_has_its_setting() {
    let flags = Flags {
        dir: Some("d".into()),
        store: Some(Secret::new("none")),
        archive: Some("a".into()),
        profile: Some("generic".into()),
        log_level: Some("debug".into()),
        log_format: Some("json".into()),
        ..Flags::default()
    };
    assert_eq!(flags.named().count(), 6);
    let loaded = Case {
        flags,
        ..Case::default()
    }
    .load()
    .expect("good");
    for key in [
        "dir",
        "store.url",
        "archive",
        "profile",
        "log.level",
        "log.format",
    ] {
        assert!(source(&loaded, key).starts_with("--"), "{key}");
    }
}

#[test]
fn two_variables_of_one_setting_may_agree_and_must_not_differ() {
    let url = "mongodb://u:canary-4711@h/db";
    Case::default()
        .env("SESSIONKEEP_STORE", url)
        .env("MONGO_URL", url)
        .good();
    let said = Case::default()
        .env("MONGO_URL", url)
        .env("WHATSAPP_SESSIONS_MONGO_URL", "mongodb://other/db")
        .bad()
        .concat();
    assert!(
        said.contains("MONGO_URL and WHATSAPP_SESSIONS_MONGO_URL"),
        "{said}"
    );
    assert!(!said.contains(CANARY));
    let said = Case::sqlite()
        .env("SESSIONKEEP_DIR", "/a")
        .env("SESSIONS_PATH", "/b")
        .bad();
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn the_gateways_own_log_level_may_differ_from_ours() {
    let case = Case::sqlite()
        .env("LOG_LEVEL", "silent")
        .env("SESSIONKEEP_LOG_LEVEL", "debug");
    assert_eq!(case.good().log.level, LogLevel::Debug);
    for (theirs, ours) in [("FATAL", LogLevel::Error), ("Verbose", LogLevel::Debug)] {
        assert_eq!(
            Case::sqlite().env("LOG_LEVEL", theirs).good().log.level,
            ours
        );
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let case = Case::sqlite()
        .env("MONGO_URL", "")
        .env("MONGO_ENABLED", " ")
        .env("PORT", "");
    let settings = case.env("SESSIONKEEP_LEASE_CONFLICT", "").good();
    assert_eq!(settings.lease.conflict, Conflict::Takeover);
}

#[test]
fn the_switch_goes_back_to_plain_files_whatever_address_is_set() {
    for value in ["False", "0", "NO", "off"] {
        for (name, url) in [
            ("MONGO_URL", "mongodb://h/db"),
            ("SESSIONKEEP_STORE", "mongodb://h/db"),
            ("SESSIONKEEP_STORE", "none"),
            ("MONGO_URL", "mongodb://u:p@ss@broken/"),
            ("PORT", "8080"),
        ] {
            let loaded = Case::default()
                .env("MONGO_ENABLED", value)
                .env(name, url)
                .load();
            let loaded = loaded.expect("good");
            assert!(loaded.settings.is_file_mode(), "{value} {name}={url}");
            assert_eq!(source(&loaded, "store.url"), "MONGO_ENABLED");
        }
    }
    let both = Case::default()
        .env("MONGO_URL", "mongodb://a/")
        .env("SESSIONKEEP_STORE", "mongodb://b/");
    assert!(both.env("MONGO_ENABLED", "false").good().is_file_mode());
}

#[test]
fn the_switch_contradicts_what_is_not_mongodb() {
    for (switch, store, word) in [
        ("true", Some("none"), "is not MongoDB"),
        ("True", Some("sqlite:x"), "is not MongoDB"),
        ("1", None, "MONGO_URL="),
        ("false", Some("sqlite:x"), "no store at all"),
        ("maybe", None, "neither true nor false"),
    ] {
        let mut case = Case::default().env("MONGO_ENABLED", switch);
        if let Some(store) = store {
            case = case.env("SESSIONKEEP_STORE", store);
        }
        let said = case.bad();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(word), "{said:?}");
    }
    Case::default()
        .env("MONGO_ENABLED", "yes")
        .env("MONGO_URL", "mongodb://h/db")
        .good();
}

#[test]
fn without_any_store_the_error_names_the_three_ways_out() {
    let said = Case::default().bad().concat();
    for way in [
        "MONGO_URL=",
        "SESSIONKEEP_STORE=sqlite:",
        "MONGO_ENABLED=false",
    ] {
        assert!(said.contains(way), "{said}");
    }
}

#[test]
fn a_typo_is_an_error_that_names_the_nearest_setting() {
    for (name, meant) in [
        ("SESSIONKEEP_STORE_WIAT", "`SESSIONKEEP_STORE_WAIT`"),
        ("SESSIONKEEP_HTTP_PROT", "`SESSIONKEEP_HTTP_PORT`"),
        ("SESSIONKEEP_CONFG", "`SESSIONKEEP_CONFIG`"),
        ("SESSIONKEEP_COLOUR", "--reference"),
    ] {
        let said = Case::sqlite().env(name, CANARY).bad().concat();
        assert!(said.contains(meant) && !said.contains(CANARY), "{said}");
    }
    let said = Case::sqlite().set("stop.totl=3s").set("nonsense").bad();
    assert!(
        said[0].contains("`stop.total`") && said[1].contains("KEY=VALUE"),
        "{said:?}"
    );
    let case = Case::sqlite().env("SESSIONKEEP_LEASE_CONFLICT", "refus");
    assert!(case.bad().concat().contains("write `refuse`"));
}

#[test]
fn a_gateway_that_is_to_stop_in_time_needs_requests_that_end_in_time() {
    let said = Case::sqlite().set("store.outage=stop").bad().concat();
    assert!(
        said.contains("store.timeout") && said.contains("`2500ms`") && said.contains("`30s`"),
        "{said}"
    );
    let settings = Case::sqlite()
        .set("store.outage=stop")
        .set("lease.ttl=30s")
        .good();
    assert_eq!(settings.store.outage, crate::config::OutagePolicy::Stop);
}

#[test]
fn variables_of_kubernetes_are_passed_over() {
    let settings = Case::sqlite()
        .env("SESSIONKEEP_PORT", "tcp://10.0.0.7:3001")
        .env("SESSIONKEEP_HTTP_PORT", "tcp://10.0.0.7:3001")
        .env("SESSIONKEEP_PORT_3001_TCP_ADDR", "10.0.0.7")
        .env("SESSIONKEEP_SERVICE_HOST", "10.0.0.7")
        .env("SESSIONKEEP_SERVICE_PORT_HTTP", "3001")
        .good();
    assert_eq!(settings.http.port, 3001);
    assert_eq!(
        Case::sqlite().env("SESSIONKEEP_PORT", "3001").bad().len(),
        1
    );
}

#[test]
fn contradictions_are_errors_with_a_way_out() {
    for (sets, remedy) in [
        (&["stop.flush=9s"][..], "raise `stop.total`"),
        (&["lease.renew=6s"], "`5s` or less"),
        (&["sync.quiet=2s"], "raise `sync.max_delay`"),
        (&["dir=/"], "name the directory"),
        (&["dir=/x", "store.url=sqlite:/x/y.db"], "keep it elsewhere"),
    ] {
        let said = sets.iter().fold(
            Case::default().env("SESSIONKEEP_ARCHIVE", "a"),
            |case, set| case.set(set),
        );
        let has_store = sets.iter().any(|set| set.starts_with("store.url"));
        let said = if has_store {
            said
        } else {
            said.set("store.url=sqlite:/s.db")
        }
        .bad();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(remedy), "{said:?}");
    }
    let said = Case::sqlite().env("PORT", "3001").bad().concat();
    assert!(said.contains("SESSIONKEEP_HTTP_PORT"), "{said}");
}

#[test]
fn all_errors_of_a_load_are_reported_together() {
    let said = Case::default()
        .file("colour: red\nstop.total: 5\n")
        .env("SESSIONKEEP_LOGLEVEL", "x")
        .env("SESSIONKEEP_HTTP_PORT", "70000")
        .bad();
    assert_eq!(said.len(), 5, "{said:#?}");
    assert!(said.iter().all(|line| !line.contains('\n')));
    let wait = said.iter().find(|line| line.starts_with("stop.total"));
    assert_eq!(
        wait.map(String::as_str),
        Some(
            "stop.total (sessionkeep.yaml line 2) = \"5\": has no unit; \
             write `5s` for seconds or `5ms` for milliseconds"
        )
    );
}

#[test]
fn directory_and_probe_follow_the_profile() {
    let waha = Case::sqlite().env("PORT", "8080").load().expect("good");
    assert_eq!(waha.settings.dir, Path::new("/app/.sessions"));
    let probe = "http://127.0.0.1:8080/ping";
    assert_eq!(waha.settings.gateway.probe.as_deref(), Some(probe));
    assert_eq!(source(&waha, "gateway.probe"), "PORT");
    let other = Case::sqlite().env("SESSIONKEEP_PROFILE", "Baileys").good();
    assert_eq!(other.dir, Path::new("/work-dir/session"));
    assert_eq!(other.gateway.probe, None);
    let off = Case::sqlite()
        .set("gateway.probe=off")
        .env("PORT", "x")
        .good();
    assert_eq!(off.gateway.probe, None);
    assert_eq!(
        Case::sqlite().set("dir=./a/./b/").good().dir,
        Path::new("/work-dir/a/b")
    );
    let store = Case::default()
        .set("store.url=sqlite:x.db")
        .good()
        .store
        .choice;
    assert_eq!(store, StoreChoice::Sqlite("/work-dir/x.db".into()));
}

#[test]
fn no_secret_ever_shows() {
    let url = format!("mongodb://u:{CANARY}@h/db?tls=true&x={CANARY}");
    let loaded = Case::default()
        .env("MONGO_URL", url.as_str())
        .env("ADMIN_TOKEN", CANARY)
        .load()
        .expect("good");
    assert!(!format!("{loaded:?}").contains(CANARY));
    let shown = loaded
        .origins
        .iter()
        .find(|o| o.key == "store.url")
        .expect("there");
    assert_eq!(shown.value_shown, "mongodb://[redacted]@h/db");
    // The address pasted into each other setting, in each place.
    for setting in registry::ALL
        .iter()
        .filter(|s| !["dir", "store.url"].contains(&s.key))
    {
        let pair = format!("{}={url}", setting.key);
        for case in [
            Case::sqlite().env(setting.env, url.as_str()),
            Case::sqlite().set(&pair),
        ] {
            let flags = format!("{:?}", case.flags);
            let said = format!("{flags} {:?}", case.load());
            assert!(!said.contains(CANARY), "{}: {said}", setting.key);
        }
    }
    for set in [url.as_str(), &format!("{url}=x"), &format!("x={url}")] {
        assert!(!Case::sqlite().set(set).bad().concat().contains(CANARY));
    }
}

#[test]
fn a_file_that_is_named_must_exist_and_one_that_is_not_need_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let flags = Flags {
        config: Some("absent.yaml".into()),
        set: vec![Secret::new("store.url=none")],
        ..Flags::default()
    };
    let named = resolve(&flags, Vec::new(), dir.path(), file::read).expect_err("absent");
    assert!(named.to_string().contains("--config"), "{named}");
    assert!(named.partial().is_some());
    let by_env = vec![("SESSIONKEEP_CONFIG".into(), "absent.yaml".into())];
    let flags = Flags {
        config: None,
        ..flags
    };
    assert!(resolve(&flags, by_env, dir.path(), file::read).is_err());
    std::fs::write(dir.path().join("sessionkeep.yaml"), "archive: found").expect("written");
    let found = resolve(&flags, Vec::new(), dir.path(), file::read).expect("good");
    assert_eq!(found.settings.archive.as_str(), "found");
}

#[test]
fn an_init_only_reads_what_is_not_about_a_session_and_minds_nothing_else() {
    let read = |pairs: &[(&str, &str)]| {
        let env = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        let no_file: ReadFile = |_, _| Ok(None);
        resolve_init_only(&Flags::default(), env.collect(), Path::new("/"), no_file)
    };
    let settings = read(&[]).expect("nothing has to be set");
    assert!(settings.is_file_mode() && settings.http.port == 0);
    assert_eq!(settings.stop.total, Duration::from_secs(9));
    let settings = read(&[
        ("MONGO_ENABLED", "maybe"),
        ("MONGO_URL", "nonsense"),
        ("SESSIONKEEP_STORE", "other nonsense"),
        ("PORT", "3001"),
        ("ADMIN_TOKEN", "a"),
        ("SESSIONKEEP_HTTP_TOKEN", "b"),
        ("SESSIONKEEP_LEASE_TTL", "soon"),
        ("SESSIONKEEP_STOP_FLUSH", "40s"),
        ("SESSIONKEEP_STOP_TOTAL", "200ms"),
        ("SESSIONKEEP_RESTART_POLICY", "always"),
    ])
    .expect("they are not looked at");
    assert_eq!(settings.stop.total, Duration::from_millis(200));
    assert_eq!(settings.stop.flush, Duration::ZERO);
    assert_eq!(
        settings.restart.policy,
        crate::config::RestartPolicy::Always
    );
    assert_eq!(settings.gateway.probe, None);
    let wrong = read(&[
        ("SESSIONKEEP_STOP_TOTAL", "soon"),
        ("SESSIONKEEP_STOPTOTAL", "1s"),
    ]);
    assert_eq!(wrong.expect_err("these are").problems.len(), 2);
}
