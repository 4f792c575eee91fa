//! The address: read by the driver, explained by us, because the driver's explanation may quote
//! what it could not read, and that may be a password.

use mongodb::options::{ConnectionString, HostInfo};

use super::errors::user_info;
use crate::store::{Result, StoreError};

/// Reads a URL.
pub(super) fn parse(url: &str) -> Result<ConnectionString> {
    ConnectionString::parse(url).map_err(|_| StoreError::Address(explain(url).to_owned()))
}

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
    fn an_unreadable_url_is_explained_without_a_word_of_it() {
        let cases = [
            ("mongodb://me:canary@word@host/db", "%40"),
            ("mongodb://me:canary/word@host/db", "%40"),
            ("mongodb://me:canary%zzword@host/db", "%40"),
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
