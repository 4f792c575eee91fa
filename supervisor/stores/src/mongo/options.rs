//! The options of a MongoDB address, after its `?`: which are taken, which mean nothing here, and which name
//! was meant by one that is not known.

use sessionkeep_core::invalid::Invalid;
use sessionkeep_core::suggest;

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The driver takes it, whatever it says.
    Text,
    /// The driver takes it, `true` or `false`.
    Switch,
    /// The driver takes it, a whole number.
    Number,
    /// Other drivers know it. It is about speed, about what another option here decides, or about nothing
    /// that is ever sent, and is left out.
    LeftOut,
    /// What it asks for is not to be had, and to go on without would not be what was asked.
    Refused(&'static str),
}

const NO_PROXY: Use =
    Use::Refused("asks for a SOCKS proxy, which this program cannot connect through");
const NO_TLS_CHECK: Use = Use::Refused(
    "switches off a check of the server's certificate, so that the session would go to whoever answers",
);

/// All that are known, with the name that is shown.
const KNOWN: &[(&str, Use)] = &[
    ("appName", Use::Text),
    ("authMechanism", Use::Text),
    ("authMechanismProperties", Use::Text),
    ("authSource", Use::Text),
    ("connectTimeoutMS", Use::Number),
    ("directConnection", Use::Switch),
    ("heartbeatFrequencyMS", Use::Number),
    ("journal", Use::Switch),
    ("loadBalanced", Use::Switch),
    ("localThresholdMS", Use::Number),
    ("maxConnecting", Use::Number),
    ("maxIdleTimeMS", Use::Number),
    ("maxPoolSize", Use::Number),
    ("maxStalenessSeconds", Use::Text),
    ("minPoolSize", Use::Number),
    ("readConcernLevel", Use::Text),
    ("readPreference", Use::Text),
    ("readPreferenceTags", Use::Text),
    ("replicaSet", Use::Text),
    ("retryReads", Use::Switch),
    ("retryWrites", Use::Switch),
    ("serverMonitoringMode", Use::Text),
    ("serverSelectionTimeoutMS", Use::Number),
    ("socketTimeoutMS", Use::Number),
    ("srvMaxHosts", Use::Number),
    ("srvServiceName", Use::Text),
    ("ssl", Use::Switch),
    ("tls", Use::Switch),
    // Refused when it is on, by the store, with the words that belong to it.
    ("tlsAllowInvalidCertificates", Use::Switch),
    ("tlsCAFile", Use::Text),
    ("tlsCertificateKeyFile", Use::Text),
    (
        "tlsCertificateKeyFilePassword",
        Use::Refused(
            "is for a key file with a password, which this program cannot read: decrypt the file",
        ),
    ),
    ("tlsInsecure", Use::Switch),
    ("w", Use::Text),
    ("wTimeoutMS", Use::Number),
    ("waitQueueTimeoutMS", Use::Number),
    ("compressors", Use::LeftOut),
    ("zlibCompressionLevel", Use::LeftOut),
    ("timeoutMS", Use::LeftOut),
    ("waitQueueMultiple", Use::LeftOut),
    ("waitQueueSize", Use::LeftOut),
    ("poolSize", Use::LeftOut),
    ("uuidRepresentation", Use::LeftOut),
    ("useNewUrlParser", Use::LeftOut),
    ("useUnifiedTopology", Use::LeftOut),
    ("autoReconnect", Use::LeftOut),
    ("keepAlive", Use::LeftOut),
    ("tlsDisableOCSPEndpointCheck", Use::LeftOut),
    ("tlsDisableCertificateRevocationCheck", Use::LeftOut),
    ("proxyHost", NO_PROXY),
    ("proxyPort", NO_PROXY),
    ("proxyUsername", NO_PROXY),
    ("proxyPassword", NO_PROXY),
    ("tlsAllowInvalidHostnames", NO_TLS_CHECK),
    ("sslValidate", NO_TLS_CHECK),
];

fn known(name: &str) -> Option<(&'static str, Use)> {
    let mut all = KNOWN.iter().copied();
    all.find(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// Looks at what follows the `?` of an address. A value is never shown, and a name only where it can be
/// nothing else.
pub fn check(query: &str) -> Result<(), Invalid> {
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let Some((name, value)) = option.split_once('=') else {
            return Err(Invalid::new(
                "has an option without `=`",
                "write options as `NAME=VALUE` after `?`, with `&` between them",
            ));
        };
        let Some((shown, taken)) = known(name) else {
            return Err(unknown(name, query));
        };
        let numeric = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match taken {
            Use::Refused(why) => {
                return Err(Invalid::new(
                    format!("has the option `{shown}`, which {why}"),
                    "take it out",
                ));
            }
            _ if value.is_empty() => {
                return Err(Invalid::new(
                    format!("has the option `{shown}` without a value"),
                    "write one, or take the option out",
                ));
            }
            Use::Switch if !["true", "false"].contains(&value) => {
                return Err(Invalid::new(
                    format!(
                        "has the option `{shown}` with a value that is neither `true` nor `false`"
                    ),
                    "write one of the two",
                ));
            }
            Use::Number if !numeric => {
                return Err(Invalid::new(
                    format!("has the option `{shown}` with a value that is no whole number"),
                    "write digits only, without a unit",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn unknown(name: &str, query: &str) -> Invalid {
    // With an `@` in what should be options, they may be part of a password.
    let is_a_name = !query.contains('@')
        && (1..=40).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let reason = match is_a_name {
        true => format!("has the option `{name}`, which is not known"),
        false => "has an option that is not known".to_owned(),
    };
    let remedy = match suggest::nearest(name, KNOWN.iter().map(|(known, _)| *known)) {
        Some(near) if is_a_name => format!("did you mean `{near}`? If not, take it out"),
        _ => "take it out".to_owned(),
    };
    Invalid::new(reason, remedy)
}

fn is_left_out(option: &str) -> Option<&'static str> {
    let name = option.split('=').next().unwrap_or_default();
    match known(name) {
        Some((shown, Use::LeftOut)) => Some(shown),
        _ => None,
    }
}

/// The options of an address that mean nothing here.
pub fn left_out(url: &str) -> Vec<&'static str> {
    let (_, query) = url.split_once('?').unwrap_or_default();
    query.split('&').filter_map(is_left_out).collect()
}

/// An address without the options that mean nothing here, some of which the driver would refuse.
pub fn for_driver(url: &str) -> String {
    let Some((address, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|option| is_left_out(option).is_none())
        .collect();
    match kept.is_empty() {
        true => address.to_owned(),
        false => format!("{address}?{}", kept.join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(query: &str) -> String {
        let invalid = check(query).expect_err(query);
        format!("{}; {}", invalid.reason, invalid.remedy)
    }

    #[test]
    fn an_option_that_is_not_known_is_named_with_the_nearest_one() {
        for (query, words) in [
            ("retryWrite=true", &["`retryWrite`", "`retryWrites`"][..]),
            ("tls=true&authsorce=admin", &["`authsorce`", "`authSource`"]),
            ("colour=red", &["`colour`", "take it out"]),
            ("tls=yes", &["`tls`", "`true`"]),
            ("maxPoolSize=5s", &["`maxPoolSize`", "digits"]),
            ("replicaSet=", &["`replicaSet`", "without a value"]),
            ("proxyHost=a", &["`proxyHost`", "SOCKS"]),
            (
                "tls=true&tlsAllowInvalidHostnames=true",
                &["`tlsAllowInvalidHostnames`", "certificate"],
            ),
            ("retryWrites", &["without `=`"]),
        ] {
            let told = told(query);
            assert!(
                words.iter().all(|word| told.contains(word)),
                "{query}: {told}"
            );
        }
        check("retryWrites=true&w=majority&appName=Cluster0&ssl=true").expect("what Atlas gives");
        check(
            "ssl=true&replicaSet=globaldb&retrywrites=false&maxIdleTimeMS=120000&appName=@account@",
        )
        .expect("what others give");
        check("").expect("none");
    }

    #[test]
    fn what_may_be_part_of_a_password_is_not_shown() {
        for query in [
            "canary=y@h/db",
            "ca-nary=x",
            &format!("canary{}=x", "y".repeat(40)),
        ] {
            assert!(!told(query).contains("canary"), "{query}");
        }
        assert!(!told("tls=canary").contains("canary"));
    }

    #[test]
    fn what_means_nothing_here_is_left_out_and_named() {
        let url = "mongodb://u:p@h/db?compressors=zlib,snappy&w=majority&TIMEOUTMS=500";
        assert_eq!(left_out(url), ["compressors", "timeoutMS"]);
        assert_eq!(for_driver(url), "mongodb://u:p@h/db?w=majority");
        assert_eq!(for_driver("mongodb://h/db?timeoutMS=5"), "mongodb://h/db");
        for same in ["mongodb://h/db", "mongodb://h/db?w=1&tls=true"] {
            assert_eq!(for_driver(same), same);
        }
    }

    #[test]
    fn the_driver_takes_what_is_taken() {
        for (name, taken) in KNOWN {
            let value = match taken {
                Use::Switch => "true",
                Use::Number => "2",
                Use::Text => match *name {
                    "authMechanism" => "SCRAM-SHA-256",
                    "authMechanismProperties" => "SERVICE_NAME:a",
                    "maxStalenessSeconds" => "120",
                    "readPreference" => "nearest",
                    "readPreferenceTags" => "dc:a",
                    "serverMonitoringMode" => "poll",
                    _ => "a",
                },
                Use::LeftOut | Use::Refused(_) => continue,
            };
            let scheme = if name.starts_with("srv") {
                "mongodb+srv"
            } else {
                "mongodb"
            };
            let user = if name.starts_with("authMech") {
                "u:p@"
            } else {
                ""
            };
            let besides = match *name {
                "readPreferenceTags" | "maxStalenessSeconds" => "readPreference=nearest&",
                _ => "",
            };
            let query = format!("{besides}{name}={value}");
            check(&query).expect(name);
            let url = format!("{scheme}://{user}a.b.c/db?{query}");
            let taken = mongodb::options::ConnectionString::parse(&url);
            assert!(taken.is_ok(), "{url}: {:?}", taken.err());
        }
    }
}
