//! Precedence, aliases, switches, contradictions, and that no secret ever shows.

use super::*;
use crate::config::{Conflict, LogLevel};
use sessionkeep_core::secret::Secret;
use sessionkeep_stores::StoreChoice;

const CANARY: &str = "canary-4711";
const CANARY_URL: &str = "https://h/canary-4711";

/// One load, with everything it looks at.
#[derive(Default)]
struct Case {
    env: Vec<(&'static str, String)>,
    flags: Flags,
    file: Option<&'static str>,
    /// Whether the settings file is looked for, where one is named.
    real_file: bool,
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
        let given: ReadFile = |_, _| {
            let text = FILE.get();
            Ok(text.map(|text| ("sessionkeep.yaml".into(), text.into())))
        };
        let read_file = if self.real_file { file::read } else { given };
        resolve(
            &self.flags,
            env.collect(),
            Path::new("/work-dir"),
            read_file,
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
fn a_set_without_a_value_or_a_key_says_what_it_lacks() {
    let told = Case::sqlite().set("sync.quiet=").set("=1").bad();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter()
            .any(|line| line.starts_with("--set sync.quiet: is empty")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|line| line.starts_with("--set: names no setting")),
        "{told:?}"
    );
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
            "restore.owner" | "dir.owner" => "1000:1001",
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
    let url = format!("mongodb://u:{CANARY}@h/db?tls=true&appName={CANARY}");
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
fn quotes_that_nobody_took_off_are_refused_and_in_a_secret_warned_of() {
    for (name, value) in [
        ("SESSIONKEEP_DIR", "\"/data/s\""),
        ("SESSIONS_PATH", "'/data/s' "),
        ("SESSIONKEEP_DIR", "\u{201c}/data/s\u{201d}"),
        ("SESSIONKEEP_STOP_TOTAL", "\"20s\""),
        ("SESSIONKEEP_WEBHOOK_URL", "'https://h/canary-4711'"),
        ("SESSIONKEEP_ARCHIVE", "\"\""),
        ("MONGO_ENABLED", "\"true\""),
    ] {
        let said = Case::sqlite().env(name, value).bad();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("--env-file"), "{said:?}");
        assert!(
            said[0].contains(name) && !said[0].contains(CANARY),
            "{said:?}"
        );
    }
    let said = Case::default()
        .env("MONGO_URL", "\"mongodb://u:canary-4711@h/db\"")
        .bad();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("quote") && !said[0].contains(CANARY),
        "{said:?}"
    );
    // Quotes may belong to a secret.
    for name in ["ADMIN_TOKEN", "WAHA_API_KEY"] {
        let value = format!("\"{CANARY}\"");
        let loaded = Case::sqlite()
            .env(name, value.as_str())
            .load()
            .expect("good");
        let [Note { weight, about }] = &loaded.notes[..] else {
            panic!("{:?}", loaded.notes)
        };
        assert_eq!(*weight, Weight::Warning);
        let said = about.to_string();
        assert!(said.contains(name) && !said.contains(CANARY), "{said}");
    }
    let inside = Case::sqlite()
        .env("ADMIN_TOKEN", "a\"b\"")
        .load()
        .expect("good");
    assert_eq!(inside.notes, []);
}

#[test]
fn a_line_break_at_the_end_of_a_secret_is_none_of_it_and_other_blanks_are_named() {
    let secrets = registry::ALL
        .iter()
        .filter(|s| s.takes == registry::SECRET_TEXT);
    for name in secrets.map(|setting| setting.env) {
        let with = |value: &str| Case::sqlite().env(name, value);
        let plain = with(CANARY).good();
        for end in ["\n", "\r\n", "\n\n"] {
            assert_eq!(
                with(&format!("{CANARY}{end}")).good(),
                plain,
                "{name} {end:?}"
            );
        }
        for wrong in [
            " canary-4711",
            "canary-4711 ",
            "canary-4711\t\n",
            "canary\n-4711",
            "canary\u{7f}4711",
        ] {
            let said = with(wrong).bad().concat();
            assert!(said.contains(name) && !said.contains("4711"), "{said}");
        }
        assert_eq!(
            with("\n").good(),
            Case::sqlite().good(),
            "{name}: an empty file"
        );
    }
}

#[test]
fn whatever_a_clumsy_hand_adds_to_a_value_is_taken_or_named() {
    let taken = Case::sqlite()
        .env("SESSIONKEEP_HTTP_PORT", "3002 ")
        .env("SESSIONKEEP_STOP_TOTAL", "20s\r")
        .env("SESSIONS_PATH", " /data/s\r\n")
        .env("SESSIONKEEP_LOG_LEVEL", "DEBUG\r");
    let settings = taken.env("SESSIONKEEP_LEASE_CONFLICT", "\t").good();
    assert_eq!(settings.http.port, 3002);
    assert_eq!(settings.dir, Path::new("/data/s"));
    for value in ["TRUE", "True\r", " yes"] {
        let case = Case::default().env("MONGO_ENABLED", value);
        case.env("MONGO_URL", "mongodb://h/db\r\n").good();
    }
    // The same after trimming.
    let same = Case::sqlite()
        .env("SESSIONKEEP_DIR", "/a")
        .env("SESSIONS_PATH", "/a\r");
    assert_eq!(same.good().dir, Path::new("/a"));
    for (name, value, words) in [
        ("SESSIONKEEP_STOP_TOTAL", "5", "`5s`"),
        ("SESSIONKEEP_STOP_TOTAL", "5 s", "`5s`"),
        ("SESSIONS_PATH", "~/session", "only a shell"),
        ("SESSIONS_PATH", "$HOME/session", "`$`"),
        ("SESSIONS_PATH", "/data/s # where it is kept", "comment"),
        (
            "SESSIONS_PATH",
            "C:/Program Files/Git/app/.sessions",
            "MSYS_NO_PATHCONV",
        ),
        ("SESSIONKEEP_CONFIG", "~/sessionkeep.yaml", "only a shell"),
        ("SESSIONKEEP_CONFIG", "'a.yaml'", "quote"),
        (
            "SESSIONKEEP_HTTP_TRUSTED_PROXIES",
            "caddy",
            "neither an IP address",
        ),
    ] {
        let case = Case {
            real_file: name == "SESSIONKEEP_CONFIG",
            ..Case::sqlite()
        };
        let said = case.env(name, value).bad();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains(words) && said[0].contains(name),
            "{said:?}"
        );
    }
    let said = Case::default()
        .env("SESSIONKEEP_STORE", "sqlite:~/keep.db")
        .bad();
    assert!(said.concat().contains("only a shell"), "{said:?}");
}

#[test]
fn a_relative_directory_is_made_absolute_with_a_word_and_a_default_without() {
    let loaded = Case::sqlite()
        .env("SESSIONS_PATH", "./a/../b/")
        .load()
        .expect("good");
    assert_eq!(loaded.settings.dir, Path::new("/work-dir/a/../b"));
    let said: Vec<String> = loaded
        .notes
        .iter()
        .map(|note| note.about.to_string())
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("/work-dir/a/../b") && said[0].contains("SESSIONS_PATH"),
        "{said:?}"
    );
    for case in [
        Case::sqlite(),
        Case::sqlite().env("SESSIONKEEP_PROFILE", "baileys"),
    ] {
        assert_eq!(case.load().expect("good").notes, []);
    }
}

#[test]
fn an_option_of_an_address_that_means_nothing_is_named_and_one_that_is_unknown_refused() {
    let with = |options: &str| {
        let url = format!("mongodb://u:{CANARY}@h/db?{options}");
        Case::default().env("MONGO_URL", url)
    };
    let loaded = with("compressors=zlib&timeoutMS=5000&w=majority")
        .load()
        .expect("good");
    let said: Vec<String> = loaded
        .notes
        .iter()
        .map(|note| note.about.to_string())
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("`compressors`") && said[1].contains("`timeoutMS`"),
        "{said:?}"
    );
    let wrong = with("replicaset=rs0&retryWrite=true").bad();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(
        wrong[0].contains("`retryWrite`") && wrong[0].contains("`retryWrites`"),
        "{wrong:?}"
    );
    assert!(!format!("{said:?}{wrong:?}").contains(CANARY));
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
        sessionkeep_init::RestartPolicy::Always
    );
    assert_eq!(settings.gateway.probe, None);
    let wrong = read(&[
        ("SESSIONKEEP_STOP_TOTAL", "soon"),
        ("SESSIONKEEP_STOPTOTAL", "1s"),
    ]);
    assert_eq!(wrong.expect_err("these are").problems.len(), 2);
}
