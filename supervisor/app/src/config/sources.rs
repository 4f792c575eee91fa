//! Where settings come from: flags over environment over file over defaults. Everything that is
//! wrong is collected, so that an operator sees it all at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::{ConfigErrors, Problem, shown, shown_name};
use super::registry::{self, Default, Setting, Sharing};
use super::secret_files::SecretFiles;
use super::store_url::Switch;
use super::values::is_quoted;
use super::{Flags, Settings, checks, file, secret_files, store_url};
use sessionkeep_core::suggest;
use sessionkeep_stores::StoreChoice;
use sessionkeep_stores::mongo::options;

/// Names the settings file in the environment.
const FILE_ENV: &str = "SESSIONKEEP_CONFIG";
/// What all variables of ours begin with.
const PREFIX: &str = "SESSIONKEEP_";
/// The gateway's port; WAHA and most hosts use this name.
const PORT_ENV: &str = "PORT";
/// The gateway's port where `PORT` is not set: WAHA's.
const PORT_DEFAULT: u16 = 3000;

/// What of the settings an init has that keeps no session.
const INIT_ONLY: &[&str] = &[
    "stop.total",
    "restart.policy",
    "restart.attempts",
    "restart.jitter",
    "log.level",
    "log.format",
];

/// Where a setting's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Env(&'static str),
    /// The file that a variable names in place of this one.
    EnvFile(&'static str),
    /// The settings file, and the line where it is known.
    File(String, Option<usize>),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Env(name) => f.write_str(name),
            Self::EnvFile(name) => f.write_str(&secret_files::name_of(name)),
            Self::File(path, Some(line)) => write!(f, "{path} line {line}"),
            Self::File(path, None) => f.write_str(path),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting in force and where it comes from, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The setting's key.
    pub key: &'static str,
    /// Its value, without secrets.
    pub value_shown: String,
    /// Where it comes from.
    pub source: Source,
}

/// Settings that were read without an error.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is in force.
    pub settings: Settings,
    /// Where each comes from.
    pub origins: Vec<Origin>,
    /// What an operator should know of them.
    pub notes: Vec<Note>,
}

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It works, and may be other than was thought.
    Info,
    /// It is hardly what was meant.
    Warning,
}

/// Something about a setting that is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub weight: Weight,
    /// What it is.
    pub about: Problem,
}

/// Reads the settings of this process.
///
/// # Errors
/// [`ConfigErrors`] with everything that is wrong.
pub fn load(flags: &Flags) -> Result<Loaded, ConfigErrors> {
    // A working directory that has gone matters only to what is given relative to it.
    let cwd = std::env::current_dir();
    let base = cwd.as_deref().unwrap_or(Path::new(""));
    let loaded = resolve(flags, std::env::vars_os().collect(), base, file::read)?;
    match cwd {
        Err(error) if checks::has_relative_path(&loaded.settings) => {
            Err(ConfigErrors::alone(Problem {
                name: "the working directory".to_owned(),
                value: None,
                reason: format!("cannot be found out ({})", error.kind()),
                remedy: "start in a directory that exists, or give absolute paths".to_owned(),
            }))
        }
        _ => Ok(loaded),
    }
}

/// Reads the settings of an init that keeps no session: of all that is set, only what is not
/// about one. The rest may be there, and wrong, and is not looked at.
///
/// # Errors
/// [`ConfigErrors`] with everything that is wrong.
pub fn load_init_only(flags: &Flags) -> Result<Settings, ConfigErrors> {
    // A working directory that has gone is no reason not to start what needs none.
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    resolve_init_only(flags, std::env::vars_os().collect(), &cwd, file::read)
}

/// [`load_init_only`] with everything it looks at as an argument.
pub(crate) fn resolve_init_only(
    flags: &Flags,
    mut env: Vec<(OsString, OsString)>,
    cwd: &Path,
    read_file: ReadFile,
) -> Result<Settings, ConfigErrors> {
    let others = registry::ALL.iter().filter(|s| !INIT_ONLY.contains(&s.key));
    let names = others.flat_map(registry::env_names);
    let dropped: Vec<&str> = names.chain([Switch::NAME, PORT_ENV]).collect();
    env.retain(|(name, _)| {
        let is_secrets_file = || name.to_str().and_then(secret_files::stands_for).is_some();
        !dropped.iter().any(|other| name == other) && !is_secrets_file()
    });
    let (mut given, env) = Given::collect(env, flags, cwd, read_file);
    given.variables(&env, None);
    given.flags(flags);
    given.texts.retain(|key, _| INIT_ONLY.contains(key));
    // The least there is, so that it is no contradiction to a short `stop.total`.
    let text = Text {
        text: "50ms".to_owned(),
        source: Source::Default,
    };
    given.texts.insert("stop.flush", text);
    let mut settings = given.settle(Some(Switch::Off), None, cwd)?.settings;
    settings.stop.flush = Duration::ZERO;
    settings.gateway.probe = None;
    settings.http.port = 0;
    Ok(settings)
}

fn origins(settings: &Settings, source: impl Fn(&Setting) -> Source) -> Vec<Origin> {
    registry::ALL
        .iter()
        .map(|setting| Origin {
            key: setting.key,
            value_shown: (setting.show)(settings),
            source: source(setting),
        })
        .collect()
}

/// How the settings file is read: `(named by and path, working directory)`.
pub(crate) type ReadFile =
    fn(Option<(&str, &Path)>, &Path) -> Result<Option<(PathBuf, Vec<u8>)>, Problem>;

/// [`load`] with everything it looks at as an argument.
pub(crate) fn resolve(
    flags: &Flags,
    env: Vec<(OsString, OsString)>,
    cwd: &Path,
    read_file: ReadFile,
) -> Result<Loaded, ConfigErrors> {
    let (mut given, env) = Given::collect(env, flags, cwd, read_file);
    let switch = given.switch(&env);
    given.variables(&env, switch);
    given.flags(flags);
    let port = given.port(&env);
    given.settle(switch, port, cwd)
}

/// A text and where it comes from.
#[derive(Debug)]
struct Text {
    text: String,
    source: Source,
}

/// What was given, and what is wrong with it, so far.
#[derive(Debug, Default)]
struct Given {
    texts: BTreeMap<&'static str, Text>,
    problems: Vec<Problem>,
    files: SecretFiles,
    /// Whether `MONGO_ENABLED` was given and could not be read: then nothing more is said about
    /// the store, since nobody knows what was meant.
    switch_is_wrong: bool,
}

/// The environment as far as it concerns us, without empty values.
pub(super) type Env = BTreeMap<String, String>;

impl Given {
    /// What the settings file says, and the environment as far as it concerns us.
    fn collect(
        env: Vec<(OsString, OsString)>,
        flags: &Flags,
        cwd: &Path,
        read_file: ReadFile,
    ) -> (Self, Env) {
        let mut given = Self::default();
        let mut env = given.environment(env);
        given.files = secret_files::read(&mut env, cwd, read_file, &mut given.problems);
        let named = flags
            .config
            .as_deref()
            .map(|path| ("--config", path))
            .or_else(|| Some((FILE_ENV, Path::new(env.get(FILE_ENV)?))));
        match read_file(named, cwd) {
            Ok(Some((path, content))) => given.file(&path.display().to_string(), &content),
            Ok(None) => {}
            Err(problem) => given.problems.push(problem),
        }
        (given, env)
    }

    fn complain(
        &mut self,
        name: impl Into<String>,
        value: Option<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem {
            name: name.into(),
            value,
            reason: reason.into(),
            remedy: remedy.into(),
        });
    }

    /// Picks what concerns us, and refuses names that begin as ours do and are not.
    fn environment(&mut self, env: Vec<(OsString, OsString)>) -> Env {
        let known: Vec<&str> = registry::ALL
            .iter()
            .flat_map(registry::env_names)
            .chain([FILE_ENV, Switch::NAME, PORT_ENV])
            .collect();
        let mut ours = Env::new();
        for (name, value) in env {
            let Some(name) = name.to_str() else { continue };
            let value = value.into_string();
            if value.as_ref().is_ok_and(|value| injected(name, value)) {
                continue;
            }
            if known.contains(&name) || secret_files::stands_for(name).is_some() {
                match value {
                    Ok(value) if value.trim().is_empty() => {}
                    Ok(value) => drop(ours.insert(name.to_owned(), value)),
                    Err(_) => self.complain(name, None, "is no text in UTF-8", "write it anew"),
                }
            } else if let Some(rest) = name.strip_prefix(PREFIX) {
                let candidates = known.iter().filter_map(|name| name.strip_prefix(PREFIX));
                let (plain, end) = secret_files::split(rest);
                let remedy = suggest::nearest(plain, candidates).map_or_else(
                    || "see `sessionkeep config --reference`".to_owned(),
                    |near| match secret_files::stands_for(&format!("{PREFIX}{near}{end}")) {
                        Some(_) => format!("did you mean `{PREFIX}{near}{end}`?"),
                        None => format!("did you mean `{PREFIX}{near}`?"),
                    },
                );
                let name = shown_name(name).unwrap_or("a variable that begins with SESSIONKEEP_");
                self.complain(name, None, "is no known setting", remedy);
            }
        }
        ours
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        for entry in file::parse(name, content, &mut self.problems) {
            let source = Source::File(name.to_owned(), entry.line);
            let text = entry.text;
            self.texts.insert(entry.key, Text { text, source });
        }
    }

    fn switch(&mut self, env: &Env) -> Option<Switch> {
        let text = env.get(Switch::NAME)?;
        match Switch::parse(text.trim()) {
            Ok(switch) => Some(switch),
            Err(_) if is_quoted(text.trim()) => {
                let about = quoted(Switch::NAME.to_owned(), false, text.trim());
                self.problems.push(about);
                self.switch_is_wrong = true;
                None
            }
            Err(why) => {
                self.complain(Switch::NAME, Some(shown(text)), why.reason, why.remedy);
                self.switch_is_wrong = true;
                None
            }
        }
    }

    fn variables(&mut self, env: &Env, switch: Option<Switch>) {
        for setting in registry::ALL {
            let mut found = registry::env_names(setting)
                .filter_map(|name| Some((name, env.get_key_value(name)?.1)));
            let Some((name, text)) = found.next() else {
                continue;
            };
            // Where MongoDB is switched off, addresses do not matter, and going back to plain
            // files must not fail because of one. A name that the gateway reads, too, may well
            // say something else to it.
            let tolerant = setting.sharing == Sharing::WithGateway
                || (setting.key == "store.url" && switch == Some(Switch::Off));
            if let Some((other, _)) =
                found.find(|(_, other)| other.trim() != text.trim() && !tolerant)
            {
                self.complain(
                    format!("{name} and {other}"),
                    None,
                    format!("both set `{}`, to different values", setting.key),
                    "keep one of them",
                );
            }
            let source = match self.files.read.contains(name) {
                true => Source::EnvFile(name),
                false => Source::Env(name),
            };
            let text = text.clone();
            self.texts.insert(setting.key, Text { text, source });
        }
    }

    fn flags(&mut self, flags: &Flags) {
        for (flag, text) in flags.named() {
            let setting = registry::ALL.iter().find(|s| s.flag == Some(flag));
            let setting = setting.expect("a test finds a setting for every flag");
            self.flag(setting, flag, text);
        }
        for pair in &flags.set {
            let Some((key, text)) = pair.expose().split_once('=') else {
                self.complain("--set", None, "has no `=`", "write `--set KEY=VALUE`");
                continue;
            };
            let key = key.trim();
            if key.is_empty() {
                self.complain("--set", None, "names no setting", "write `--set KEY=VALUE`");
                continue;
            }
            if let Some(setting) = registry::find(key) {
                self.flag(setting, "--set", text);
                continue;
            }
            let remedy = suggest::nearest(key, registry::ALL.iter().map(|s| s.key)).map_or_else(
                || "see `sessionkeep config --reference`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            let name = shown_name(key).map_or("--set".to_owned(), |key| format!("--set {key}"));
            self.complain(name, None, "is no known setting", remedy);
        }
    }

    fn flag(&mut self, setting: &Setting, flag: &'static str, text: &str) {
        let source = Source::Flag(flag);
        let text = text.to_owned();
        if text.trim().is_empty() {
            let name = match flag {
                "--set" => format!("--set {}", setting.key),
                flag => flag.to_owned(),
            };
            self.complain(name, None, "is empty", format!("write {}", setting.takes));
            return;
        }
        match self.texts.get(setting.key) {
            Some(Text {
                source: Source::Flag(other),
                text: before,
            }) if *before != text => {
                let name = format!("{other} and {flag}");
                let reason = format!("both set `{}`, to different values", setting.key);
                self.complain(name, None, reason, "keep one of them");
            }
            _ => drop(self.texts.insert(setting.key, Text { text, source })),
        }
    }

    /// The gateway's port, if it is set.
    fn port(&mut self, env: &Env) -> Option<u16> {
        let text = env.get(PORT_ENV)?;
        let port = text.trim().parse().ok().filter(|port| *port != 0);
        // Where the probe is given, `PORT` is nobody's business but the gateway's.
        if port.is_none() && !self.texts.contains_key("gateway.probe") {
            let remedy = "write the number of the gateway's port, or set SESSIONKEEP_GATEWAY_PROBE";
            self.complain(PORT_ENV, Some(shown(text)), "is no port", remedy);
        }
        port
    }

    /// Reads the texts, works out the defaults that depend on others, and looks for contradictions.
    fn settle(
        mut self,
        switch: Option<Switch>,
        port: Option<u16>,
        cwd: &Path,
    ) -> Result<Loaded, ConfigErrors> {
        let mut settings = registry::defaults();
        let texts = std::mem::take(&mut self.texts);
        let is_unread = |name: &&str| self.files.unread.contains(name);
        let unread = registry::ALL
            .iter()
            .filter(|setting| registry::env_names(setting).any(|name| is_unread(&name)));
        let mut wrong: Vec<&'static str> = unread.map(|setting| setting.key).collect();
        let mut notes = Vec::new();
        for setting in registry::ALL {
            let Some(Text { text, source }) = texts.get(setting.key) else {
                continue;
            };
            let name = || format!("{} ({source})", setting.key);
            // Blanks around a value come with quoting; in a secret they may be meant.
            let text = if setting.secret && setting.takes == registry::SECRET_TEXT {
                text
            } else {
                text.trim()
            };
            if setting.key == "store.url" && switch == Some(Switch::Off) && !is_sqlite(text) {
                continue;
            }
            if is_quoted(text.trim()) {
                let is_text = setting.takes == registry::SECRET_TEXT;
                let about = quoted(name(), setting.secret, text);
                match is_text {
                    // It may be one that somebody made up, or a program, which quotes belong to.
                    true => notes.push(Note {
                        weight: Weight::Warning,
                        about,
                    }),
                    false => {
                        self.problems.push(about);
                        wrong.push(setting.key);
                        continue;
                    }
                }
            }
            if let Err(why) = (setting.set)(&mut settings, text) {
                let value = if setting.secret {
                    "[redacted]".to_owned()
                } else {
                    shown(text)
                };
                self.complain(name(), Some(value), why.reason, why.remedy);
                wrong.push(setting.key);
            }
        }

        let is_given = |key| texts.contains_key(key) && !wrong.contains(&key);
        if !is_given("dir") {
            settings.dir = settings.profile.kind().directory().into();
        }
        if !is_given("gateway.probe") {
            settings.gateway.probe = settings.profile.kind().probe(port.unwrap_or(PORT_DEFAULT));
        }
        if let Some(Text { text, source }) = texts.get("dir").filter(|_| is_given("dir"))
            && settings.dir.is_relative()
        {
            let text = text.trim();
            notes.push(relative(format!("dir ({source})"), text, &cwd.join(text)));
        }
        if let (StoreChoice::Sqlite(file), Some(Text { source, .. })) =
            (&settings.store.choice, texts.get("store.url"))
            && file.is_relative()
        {
            let text = file.display().to_string();
            notes.push(relative(
                format!("store.url ({source})"),
                &text,
                &cwd.join(file),
            ));
        }
        checks::make_absolute(&mut settings, cwd);
        let choice = is_given("store.url").then(|| settings.store.choice.clone());
        if !wrong.contains(&"store.url") && !self.switch_is_wrong {
            match Switch::apply(switch, choice) {
                Ok(choice) => settings.store.choice = choice,
                Err(why) => {
                    let from = texts.get("store.url").map(|text| &text.source);
                    let name = from.map_or_else(
                        || "store.url".to_owned(),
                        |source| format!("store.url ({source})"),
                    );
                    let value = from.map(|_| store_url::show(&settings.store.choice));
                    self.complain(name, value, why.reason, why.remedy);
                }
            }
        }
        if let StoreChoice::Mongo(url) = &settings.store.choice
            && let Some(Text { source, .. }) = texts.get("store.url")
        {
            let unused = options::left_out(url.expose());
            notes.extend(unused.iter().map(|option| meaningless(source, option)));
        }
        self.problems
            .extend(checks::contradictions(&settings, port, &wrong));

        let origins = origins(&settings, |setting| match texts.get(setting.key) {
            _ if setting.key == "store.url" && switch == Some(Switch::Off) => {
                Source::Env(Switch::NAME)
            }
            Some(text) if !wrong.contains(&setting.key) => text.source.clone(),
            _ => match setting.default {
                Default::Depends(_)
                    if setting.key == "gateway.probe"
                        && port.is_some()
                        && settings.gateway.probe.is_some() =>
                {
                    Source::Env(PORT_ENV)
                }
                _ => Source::Default,
            },
        });
        if self.problems.is_empty() {
            return Ok(Loaded {
                settings,
                origins,
                notes,
            });
        }
        Err(ConfigErrors {
            problems: self.problems,
            origins,
            partial: Some(Box::new(settings)),
        })
    }
}

/// Quotes that belong to the value.
fn quoted(name: String, secret: bool, text: &str) -> Problem {
    Problem {
        name,
        value: Some(if secret { "[redacted]".to_owned() } else { shown(text) }),
        reason: "begins and ends with a quote, which is part of the value".to_owned(),
        remedy: "write it without quotes: `docker run --env-file` and the forms of many hosts take them as they are".to_owned(),
    }
}

fn relative(name: String, text: &str, absolute: &Path) -> Note {
    let absolute = checks::plain(absolute);
    Note {
        weight: Weight::Info,
        about: Problem {
            name,
            value: Some(shown(text)),
            reason: format!(
                "is relative to the working directory, and stands for {}",
                absolute.display()
            ),
            remedy: "write it in full where that is not what the gateway uses".to_owned(),
        },
    }
}

fn meaningless(source: &Source, option: &str) -> Note {
    Note {
        weight: Weight::Info,
        about: Problem {
            name: format!("store.url ({source})"),
            value: None,
            reason: format!("has the option `{option}`, which means nothing here and is left out"),
            remedy: "take it out".to_owned(),
        },
    }
}

fn is_sqlite(text: &str) -> bool {
    text.starts_with("sqlite:")
}

/// Whether a variable is one that Kubernetes (or an old Docker link) puts into every container for
/// a service whose name begins with `sessionkeep`: addresses such as
/// `SESSIONKEEP_HTTP_PORT=tcp://10.0.0.7:3001`, which nobody meant as a setting.
fn injected(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let about_a_port = rest.split("PORT_").nth(1).is_some_and(|port| {
        port.split('_')
            .next()
            .is_some_and(|n| n.parse::<u16>().is_ok())
    });
    (address && rest.ends_with("PORT"))
        || about_a_port
        || rest.ends_with("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
