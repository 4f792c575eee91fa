//! The store's address: reading it, showing it without its secrets, and what `MONGO_ENABLED`
//! makes of it.

use super::paths;
use sessionkeep_core::invalid::Invalid;
use sessionkeep_core::secret::Secret;
use sessionkeep_stores::StoreChoice;
use sessionkeep_stores::mongo::options;

const FORMS: &str = "write `mongodb://USER:PASSWORD@HOST/DATABASE`, `mongodb+srv://…`, \
                     `sqlite:PATH` or `none`";

/// Reads an address. An error repeats nothing of it but its scheme.
pub(crate) fn parse(text: &str) -> Result<StoreChoice, Invalid> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(StoreChoice::None);
    }
    if let Some(path) = text.strip_prefix("sqlite:") {
        // `sqlite:///data/x` is how other programs write an absolute path.
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.ends_with('/') || path == ":memory:" {
            return Err(Invalid::new("names no file", "write `sqlite:PATH`"));
        }
        return Ok(StoreChoice::Sqlite(paths::path(path)?));
    }
    match text.split_once("://") {
        Some(("mongodb" | "mongodb+srv", rest)) => {
            Mongo::parse(rest)?;
            Ok(StoreChoice::Mongo(Secret::new(text)))
        }
        Some(("postgres" | "postgresql" | "cockroachdb", _)) => Err(Invalid::new(
            "is a PostgreSQL address, which this version does not work with yet",
            FORMS,
        )),
        Some((scheme, _)) if is_scheme(scheme) => Err(Invalid::new(
            format!("has the unknown scheme `{scheme}://`"),
            FORMS,
        )),
        _ => Err(Invalid::new("is no address of a store", FORMS)),
    }
}

/// Shown as a scheme only if it is one: a password in the wrong place is not.
fn is_scheme(text: &str) -> bool {
    (1..=20).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'+' || b == b'-')
}

/// The address with user, password and options left out.
pub(crate) fn show(choice: &StoreChoice) -> String {
    match choice {
        StoreChoice::None => "none".to_owned(),
        StoreChoice::Sqlite(path) => format!("sqlite:{}", path.display()),
        StoreChoice::Mongo(url) => {
            let (scheme, rest) = url.expose().split_once("://").unwrap_or_default();
            match Mongo::parse(rest) {
                Ok(parts) => {
                    let user = if parts.has_user { "[redacted]@" } else { "" };
                    let slash = if parts.database.is_empty() { "" } else { "/" };
                    format!("{scheme}://{user}{}{slash}{}", parts.hosts, parts.database)
                }
                Err(_) => "[redacted]".to_owned(),
            }
        }
    }
}

/// The parts of a MongoDB address that may be shown.
struct Mongo<'a> {
    has_user: bool,
    hosts: &'a str,
    database: &'a str,
}

impl<'a> Mongo<'a> {
    /// Takes what follows the scheme apart, strictly: a password with a bare `@`, `/` or `?` would
    /// otherwise end up in what looks like the host, and be shown.
    fn parse(rest: &'a str) -> Result<Self, Invalid> {
        let bare = || {
            Invalid::new(
                "cannot be taken apart",
                "percent-encode the user name and the password: write `@` as `%40`, `/` as `%2F`, \
                 `:` as `%3A`, `?` as `%3F`, `#` as `%23`, `%` as `%25`",
            )
        };
        let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let (path, query) = after.split_once('?').unwrap_or((after, ""));
        let database = path.strip_prefix('/').unwrap_or(path);
        // An `@` in the options is nobody's mistake only where user and path came before it.
        let options_may_hold_at = user.is_some() && path.starts_with('/');
        if user.is_some_and(|user| user.contains('@') || user.matches(':').count() > 1)
            || path.contains('@')
            || (query.contains('@') && !options_may_hold_at)
        {
            return Err(bare());
        }
        if hosts.is_empty() {
            return Err(Invalid::new(
                "names no host",
                "write `mongodb://HOST/DATABASE`",
            ));
        }
        if !hosts.split(',').all(is_host) {
            return Err(bare());
        }
        if let Some(invalid) = wrong_database(database) {
            return Err(invalid);
        }
        options::check(query)?;
        Ok(Self {
            has_user: user.is_some(),
            hosts,
            database,
        })
    }
}

/// A host name or address and, if it has one, a numeric port. A socket's path is
/// percent-encoded, hence `%`.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((name, port)) => (name, port.strip_prefix(':')),
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.%:".contains(&b))
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// What is wrong with the name of a database; of a bare password, no more than one sign is repeated.
fn wrong_database(name: &str) -> Option<Invalid> {
    const REMEDY: &str = "write at most 63 letters, digits, `-` and `_` after the last `/`";
    if name.len() > 63 {
        return Some(Invalid::new(
            "names a database with more letters than MongoDB takes",
            REMEDY,
        ));
    }
    // `%20` is a blank in the end.
    let bytes = name.as_bytes();
    let hex = |at: usize| std::str::from_utf8(bytes.get(at..at + 2)?).ok();
    let mut at = 0;
    while at < bytes.len() {
        let sign = match bytes[at] {
            b'%' => {
                let byte = hex(at + 1).and_then(|two| u8::from_str_radix(two, 16).ok());
                at += 2;
                byte.unwrap_or(b'%')
            }
            byte => byte,
        };
        at += 1;
        let reason = match sign {
            sign if sign.is_ascii_alphanumeric() || b"-_".contains(&sign) => continue,
            b' ' => "names a database with a blank, which MongoDB does not take".to_owned(),
            sign if b".$\"*<>:|?/\\".contains(&sign) => format!(
                "names a database with a `{}`, which MongoDB does not take",
                char::from(sign)
            ),
            _ => "names a database with a sign that is not sure to be taken".to_owned(),
        };
        return Some(Invalid::new(reason, REMEDY));
    }
    None
}

/// The switch that turns MongoDB on and off, whatever the address says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    On,
    Off,
}

impl Switch {
    /// The variable's name.
    pub(super) const NAME: &'static str = "MONGO_ENABLED";

    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Self::On),
            "false" | "0" | "no" | "off" => Ok(Self::Off),
            _ => Err(Invalid::new(
                "is neither true nor false",
                "write `true` or `false`",
            )),
        }
    }

    /// What is in force where the address says `given`. Off beats an address of MongoDB: that is
    /// how one goes back to plain files, with one variable, without taking the setup apart.
    pub(super) fn apply(
        switch: Option<Self>,
        given: Option<StoreChoice>,
    ) -> Result<StoreChoice, Invalid> {
        match (switch, given) {
            (Some(Self::Off), Some(StoreChoice::Sqlite(_))) => Err(Invalid::new(
                "is an SQLite file, while MONGO_ENABLED=false asks for no store at all",
                "remove MONGO_ENABLED to use the file, or the address to use none",
            )),
            (Some(Self::Off), _) => Ok(StoreChoice::None),
            (Some(Self::On), Some(StoreChoice::Sqlite(_) | StoreChoice::None)) => {
                Err(Invalid::new(
                    "is not MongoDB, while MONGO_ENABLED=true asks for it",
                    "remove MONGO_ENABLED, or write the address of a MongoDB",
                ))
            }
            (Some(Self::On), None) => Err(Invalid::new(
                "is not set, while MONGO_ENABLED=true asks for MongoDB",
                "set MONGO_URL=mongodb://HOST/DATABASE, or MONGO_ENABLED=false",
            )),
            (_, Some(choice)) => Ok(choice),
            (None, None) => Err(Invalid::new(
                "is not set, so there is nowhere to keep the session",
                "set MONGO_URL=mongodb://HOST/DATABASE, or SESSIONKEEP_STORE=sqlite:PATH, or \
                 MONGO_ENABLED=false to keep it in the directory alone",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(url: &str) -> Option<String> {
        parse(url).ok().map(|choice| show(&choice))
    }

    #[test]
    fn what_is_shown_is_scheme_host_and_database() {
        for (url, expected) in [
            (
                "mongodb://u:canary@h:27017/db?authSource=canary",
                "mongodb://[redacted]@h:27017/db",
            ),
            (
                "mongodb+srv://canary@a.b-c.net",
                "mongodb+srv://[redacted]@a.b-c.net",
            ),
            ("mongodb://a:1,b:2,[::1]:3/", "mongodb://a:1,b:2,[::1]:3"),
            (
                "mongodb://u:canary@h/db?appName=x@canary",
                "mongodb://[redacted]@h/db",
            ),
            ("sqlite:a/b.db", "sqlite:a/b.db"),
            ("sqlite:///a/b.db", "sqlite:/a/b.db"),
            ("NONE", "none"),
        ] {
            assert_eq!(shown(url).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_password_that_is_not_encoded_is_refused_and_nothing_of_it_is_said() {
        for url in [
            "mongodb://u:can@ary@h/db",
            "mongodb://u:can/ary@h/db",
            "mongodb://u:can?ary@h/db",
            "mongodb://u:can#ary@h/db",
            "mongodb://u:12?canary@h/db",
            "mongodb://u:p@canary/x@h/db",
            "mongodb://u:p@canary?x@h/db",
            "mongodb://u:canary:x@h/db",
            "mongodb://u:canary@/db",
            "mongodb://",
            "postgres://u:canary@h/db",
            "redis://u:canary@h",
            "Canary://x",
            "canary",
            "sqlite:",
        ] {
            let invalid = parse(url).expect_err(url);
            let said = format!("{invalid:?}");
            assert!(!said.to_lowercase().contains("canary"), "{said}");
            assert!(!said.contains("12?"), "{said}");
        }
    }

    #[test]
    fn a_database_that_mongodb_does_not_take_is_refused_with_the_sign() {
        for (url, words) in [
            ("mongodb://h/my.db", "`.`"),
            ("mongodb://h/my db", "blank"),
            ("mongodb://h/my%20db", "blank"),
            ("mongodb://h/my%2Fdb", "`/`"),
            ("mongodb://h/a/b", "`/`"),
            ("mongodb://h/my$db", "`$`"),
            ("mongodb://h/m\u{fc}ller", "not sure"),
            ("mongodb://h/a%", "not sure"),
            ("mongodb://h/a%4", "not sure"),
            (&format!("mongodb://h/{}", "x".repeat(64)), "63"),
        ] {
            let invalid = parse(url).expect_err(url);
            let said = format!("{}; {}", invalid.reason, invalid.remedy);
            assert!(said.contains(words), "{url}: {said}");
        }
        for url in ["mongodb://h/My-db_1", "mongodb://h/%61b", "mongodb://h/"] {
            parse(url).expect(url);
        }
    }

    #[test]
    fn an_unknown_scheme_is_named_and_what_works_is_listed() {
        let invalid = parse("redis://h").expect_err("unknown");
        assert!(invalid.reason.contains("redis://"));
        assert!(invalid.remedy.contains("sqlite:PATH"));
        let invalid = parse("postgres://h").expect_err("not yet");
        assert!(invalid.reason.contains("yet"));
    }

    proptest! {
        #[test]
        fn a_password_of_any_letters_never_shows(password in "[ -~]{1,20}") {
            let marked = format!("Qz{password}zQ");
            let url = format!("mongodb://user:{marked}@h/db");
            let said = match parse(&url) {
                Ok(choice) => format!("{} {choice:?}", show(&choice)),
                Err(invalid) => format!("{invalid:?}"),
            };
            prop_assert!(!said.contains("Qz") && !said.contains("zQ"), "{}", said);
        }
    }
}
