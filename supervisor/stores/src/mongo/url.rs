//! The address: read by the driver, explained by us, because the driver's explanation may quote
//! what it could not read, and that may be a password.

use mongodb::options::{ConnectionString, HostInfo, Tls};

use super::errors::user_info;
use super::options;
use sessionkeep_archive::store::{Result, StoreError};

/// Reads a URL. One that would have us talk to whoever answers is refused.
pub(super) fn parse(url: &str) -> Result<ConnectionString> {
    let unreadable = || StoreError::Address(explain(url).to_owned());
    if breaks_the_driver(url) {
        return Err(unreadable());
    }
    let parsed = ConnectionString::parse(options::for_driver(url)).map_err(|_| unreadable())?;
    match &parsed.tls {
        Some(Tls::Enabled(tls)) if tls.allow_invalid_certificates == Some(true) => {
            Err(StoreError::Address(UNVERIFIED.to_owned()))
        }
        _ => Ok(parsed),
    }
}

/// Whether a letter beyond ASCII follows a `%` where digits are to be. The driver (3.9) cuts it in two,
/// and so ends in a panic that quotes the password.
fn breaks_the_driver(url: &str) -> bool {
    url.match_indices('%').any(|(at, _)| {
        let rest = &url.as_bytes()[at + 1..];
        !rest[..rest.len().min(2)].is_ascii()
    })
}

const UNVERIFIED: &str = "the MongoDB URL switches off the check of the server's certificate, and the \
                          session would go to whoever answers there: take `tlsInsecure` and \
                          `tlsAllowInvalidCertificates` out, and name the file of the CA that signed \
                          the certificate with `tlsCAFile=/PATH/ca.pem`";

/// What is most likely wrong with a URL that the driver does not take. Fixed texts only.
fn explain(url: &str) -> &'static str {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "the MongoDB URL must begin with `mongodb://` or `mongodb+srv://`";
    };
    if scheme != "mongodb" && scheme != "mongodb+srv" {
        return "the MongoDB URL must begin with `mongodb://` or `mongodb+srv://`";
    }
    if let Some(user_info) = user_info(url) {
        let password = user_info.split_once(':').map_or("", |(_, word)| word);
        let percent_is_broken = user_info.match_indices('%').any(|(at, _)| {
            let code = user_info.as_bytes().get(at + 1..at + 3);
            !code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit))
        });
        if percent_is_broken || password.contains(|c| ":/?#[]@".contains(c)) {
            return "the MongoDB URL cannot be read: in user name and password, write each of \
                    `: / ? # [ ] @ %` as `%` and two hex digits (`@` as `%40`)";
        }
    }
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if host.is_empty() || host.starts_with(['/', '?']) {
        return "the MongoDB URL names no host: `mongodb://HOST:27017/DATABASE`";
    }
    if scheme == "mongodb+srv"
        && host
            .split(['/', '?'])
            .next()
            .is_some_and(|h| h.contains([',', ':']))
    {
        return "a `mongodb+srv://` URL names exactly one host and no port";
    }
    "the MongoDB URL cannot be read: check the port, the database's name and each option after `?`"
}

/// The hosts in words that may be shown.
pub(super) fn hosts(parsed: &ConnectionString) -> String {
    match &parsed.host_info {
        HostInfo::HostIdentifiers(hosts) => hosts
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
        HostInfo::DnsRecord(name) => name.clone(),
        _ => "a host".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unverified_server_is_refused_however_it_is_asked_for() {
        let told = |options: &str| {
            let url = format!("mongodb://me:canaryword@host/db?{options}");
            parse(&url)
                .map(drop)
                .map_err(|error| format!("{error} {error:?}"))
        };
        for options in [
            "tlsInsecure=true",
            "tls=true&tlsinsecure=true",
            "tlsAllowInvalidCertificates=true&tlsCAFile=/ca.pem",
            "ssl=true&TLSALLOWINVALIDCERTIFICATES=true",
        ] {
            let refused = told(options).expect_err(options);
            assert!(refused.contains("tlsCAFile="), "{options}: {refused}");
            assert!(!refused.contains("canary"), "{options}: {refused}");
        }
        for options in [
            "tls=true",
            "tlsInsecure=false",
            "tlsCAFile=/ca.pem",
            "tls=false",
        ] {
            assert_eq!(told(options), Ok(()), "{options}");
        }
    }

    #[test]
    fn an_unreadable_url_is_explained_without_a_word_of_it() {
        let cases = [
            ("mongodb://me:canary@word@host/db", "%40"),
            ("mongodb://me:canary/word@host/db", "%40"),
            ("mongodb://me:canary%zzword@host/db", "%40"),
            ("mongodb://me:canary%\u{fffd}word@host/db", "%40"),
            ("mongodb://me:canary%4éword@host/db", "%40"),
            ("mongodb://me:canaryword@/db", "names no host"),
            ("mongodb://me:canaryword@host:port/db", "check the port"),
            (
                "mongodb://me:canaryword@host/db?canary=word",
                "cannot be read",
            ),
            ("mongodb+srv://me:canaryword@a.b.c:27017/db", "no port"),
            ("postgres://me:canaryword@host/db", "must begin with"),
            ("canaryword", "must begin with"),
        ];
        for (url, expected) in cases {
            let Err(error) = parse(url) else {
                // The driver is more tolerant than expected; then nothing is to be explained.
                assert!(!explain(url).contains("canary"), "{url}");
                continue;
            };
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(expected), "{url}: {shown}");
            assert!(!shown.contains("canary"), "{url}: {shown}");
        }
    }
}
