//! From the driver's errors to the store's, split by what the caller does about them, and without
//! anything that opens a door.

use std::time::Duration;

use mongodb::error::{Error, ErrorKind, RETRYABLE_WRITE_ERROR, WriteFailure};
use mongodb::options::ConnectionString;

use sessionkeep_archive::store::{NoWrites, StoreError};

/// What a piece of work inside the store ended with, before it is told to the caller.
pub(super) enum Fault {
    /// The driver's error, still to be classified.
    Driver(Error),
    /// An error that is already the caller's.
    Store(StoreError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What the driver said, in words that may be logged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Words(String);

/// The store did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} ms", .0.as_millis())]
struct Silence(Duration);

/// Turns errors into the store's, and takes every credential out of their words.
///
/// The driver takes care not to show any. This is the second lock on the same door: the words of
/// servers, proxies and later driver versions pass through here as well.
pub(super) struct Translator {
    secrets: Vec<String>,
}

impl Translator {
    pub(super) fn new(url: &str, parsed: &ConnectionString) -> Self {
        let mut secrets = vec![url.to_owned()];
        if let Some(credential) = &parsed.credential {
            secrets.extend(credential.password.clone());
        }
        // As written in the URL, where special characters are percent-encoded.
        if let Some(user_info) = user_info(url) {
            secrets.push(user_info.to_owned());
            secrets.extend(user_info.split_once(':').map(|(_, word)| word.to_owned()));
        }
        // Shorter ones occur in ordinary words by chance; no driver message shows them anyway.
        secrets.retain(|secret| secret.len() >= 4);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    fn clean(&self, mut words: String) -> String {
        for secret in &self.secrets {
            if words.contains(secret.as_str()) {
                words = words.replace(secret.as_str(), "[redacted]");
            }
        }
        words
    }

    /// The driver's words without secrets, and without the whole server response, which the
    /// driver's own message repeats.
    pub(super) fn words(&self, error: &Error) -> String {
        let mut words = error.kind.to_string();
        let mut cause = std::error::Error::source(error).and_then(|c| c.downcast_ref::<Error>());
        while let Some(error) = cause {
            words.push_str(": ");
            words.push_str(&error.kind.to_string());
            cause = std::error::Error::source(error).and_then(|c| c.downcast_ref::<Error>());
        }
        self.clean(with_advice(without_topology(words)))
    }

    /// Whether the error says that no server belongs to the replica set of the URL.
    pub(super) fn is_of_another_set(&self, error: &Error) -> bool {
        matches!(error.kind.as_ref(), ErrorKind::ServerSelection { .. })
            && self.words(error).contains(OTHER_SET)
    }

    /// The store's error for `fault`, which happened on the way to `action`.
    pub(super) fn tell(&self, action: &'static str, fault: Fault) -> StoreError {
        self.tell_with(action, fault, None)
    }

    /// The same, with what else is known.
    pub(super) fn tell_with(
        &self,
        action: &'static str,
        fault: Fault,
        more: Option<String>,
    ) -> StoreError {
        let error = match fault {
            Fault::Store(error) => return error,
            Fault::Driver(error) => error,
        };
        let mut words = self.words(&error);
        if let Some(more) = more {
            words = format!("{words}; {more}");
        }
        let source = Box::new(Words(words));
        match classify(&error) {
            Class::Transient => StoreError::Unavailable { action, source },
            Class::Denied => StoreError::Denied { action, source },
            Class::NoWrites(why) => StoreError::WritesRefused {
                action,
                why,
                source,
            },
            Class::Other => StoreError::Failed { action, source },
        }
    }
}

/// The error of an operation that was still under way at its deadline.
pub(super) fn silent(action: &'static str, deadline: Duration) -> StoreError {
    StoreError::Unavailable {
        action,
        source: Box::new(Silence(deadline)),
    }
}

/// User name and password as written in a URL. Everything up to the last `@` counts, so that a
/// password with an unescaped `@` or `/` is found whole.
pub(super) fn user_info(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once('@').map(|(user_info, _)| user_info)
}

/// What is said where the driver has let go of every server.
const OTHER_SET: &str = "none of the servers belongs to the replica set";

/// Puts each server's own trouble in place of the driver's dump of all that it knows about them:
/// the one thing in it that somebody can act on. Where no server is in trouble (a replica set that
/// has no primary now), the kind of the deployment stays.
fn without_topology(words: String) -> String {
    const DUMP: &str = " Topology: { Type: ";
    let Some((before, dump)) = words.split_once(DUMP) else {
        return words;
    };
    let troubles: Vec<String> = dump
        .split("{ Address: ")
        .skip(1)
        .filter_map(|server| {
            let (address, rest) = server.split_once(", Type: ")?;
            let (_, trouble) = rest.split_once("Error: Kind: ")?;
            let (trouble, _) = trouble.split_once(", labels: ")?;
            Some(format!("{address}: {trouble}"))
        })
        .collect();
    // The driver lets go of every server that says that it belongs to no set, or to another one.
    if let Some(name) = set_name(dump)
        && !dump.contains("{ Address: ")
    {
        return format!(
            "{}: {OTHER_SET} `{name}`: correct `replicaSet` in the URL, or take it out; \
             for one server by itself, write `directConnection=true` in its place",
            before.trim_end_matches('.')
        );
    }
    if troubles.is_empty() {
        let kind = dump.split([',', ' ']).next().unwrap_or_default();
        return format!("{} ({kind})", before.trim_end_matches('.'));
    }
    format!("{}: {}", before.trim_end_matches('.'), troubles.join("; "))
}

/// The replica set that the driver's dump names.
fn set_name(dump: &str) -> Option<&str> {
    let (_, rest) = dump.split_once("Set Name: ")?;
    rest.split([',', ' '])
        .next()
        .filter(|name| !name.is_empty())
}

/// What TLS says when it refuses a server, and what to do about it. The words are those of rustls, which
/// the driver passes on as text.
const TLS_ADVICE: [(&str, &str); 8] = [
    (
        "invalid peer certificate: UnknownIssuer",
        "no CA that we know signed the server's certificate; name the file of the one that did with \
         `tlsCAFile=/PATH/ca.pem` in the URL",
    ),
    (
        "invalid peer certificate: certificate not valid for name",
        "the server's certificate is for another host; write the host in the URL as the certificate \
         has it, and check that it is the right server",
    ),
    (
        "invalid peer certificate: CaUsedAsEndEntity",
        "the server shows the certificate of a CA as its own; give it one that a CA signed, and name \
         that CA's file with `tlsCAFile=/PATH/ca.pem` in the URL",
    ),
    (
        "invalid peer certificate: BadSignature",
        "the CA of `tlsCAFile` has the right name and did not sign the server's certificate; name the \
         file of the one that signed it",
    ),
    (
        "invalid peer certificate: certificate expired",
        "the server's certificate has run out; renew it, and check this machine's clock",
    ),
    (
        "invalid peer certificate: ",
        "the server's certificate is refused; give the server one that a CA signed",
    ),
    (
        "InvalidContentType",
        "the server does not speak TLS on this port; check the port, and switch TLS on in the server",
    ),
    (
        "tls handshake eof",
        "the server hung up instead of speaking TLS; check the port, and that TLS is on in the server",
    ),
];

/// What was said, and the next step where it is known.
fn with_advice(words: String) -> String {
    let known = TLS_ADVICE.iter().find(|(said, _)| words.contains(said));
    match known {
        Some((_, advice)) => format!("{words}: {advice}"),
        None => words,
    }
}

/// Whether the error says that the key is taken.
pub(super) fn is_duplicate_key(error: &Error) -> bool {
    code(error) == Some(11000)
}

/// Whether the error says that we lack a right.
pub(super) fn is_denied(error: &Error) -> bool {
    matches!(classify(error), Class::Denied)
}

/// Whether the error says that the store takes no writes now.
pub(super) fn refuses_writes(error: &Error) -> bool {
    matches!(classify(error), Class::NoWrites(_))
}

/// Whether the error says that the collection is there already.
pub(super) fn already_exists(error: &Error) -> bool {
    code(error) == Some(48)
}

/// Whether the trouble is one that passes.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(classify(error), Class::Transient)
}

#[derive(Debug, PartialEq, Eq)]
enum Class {
    Transient,
    Denied,
    NoWrites(NoWrites),
    Other,
}

/// Codes of a server that cannot serve just now: shutting down, electing, out of reach of its
/// majority, out of time, out of disk. Most are the driver's own list of retryable codes.
const TRANSIENT: &[i32] = &[
    6, 7, 24, 43, 46, 50, 64, 89, 91, 100, 112, 133, 134, 189, 202, 237, 262, 290, 9001, 10058,
    10107, 11600, 11601, 11602, 13388, 13435, 13436,
];
/// Unauthorized, no such user, authentication failed, and Atlas' own code for each of these.
const DENIED: &[i32] = &[11, 13, 18, ATLAS];

/// What Atlas calls most of what it refuses; its words tell what.
const ATLAS: i32 = 8000;

/// Why a server takes no writes, where this is what its error says.
fn no_writes(code: i32, words: &str) -> Option<NoWrites> {
    match code {
        ATLAS if words.contains("quota") => Some(NoWrites::Quota),
        // OutOfDiskSpace.
        14031 => Some(NoWrites::DiskFull),
        // UserWritesBlocked.
        371 => Some(NoWrites::Blocked),
        _ => None,
    }
}

fn classify(error: &Error) -> Class {
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. } => return Class::Transient,
        ErrorKind::Authentication { .. } => return Class::Denied,
        _ => {}
    }
    if let Some(why) = code(error).and_then(|code| no_writes(code, &error.kind.to_string())) {
        return Class::NoWrites(why);
    }
    match code(error) {
        Some(code) if DENIED.contains(&code) => Class::Denied,
        Some(code) if TRANSIENT.contains(&code) => Class::Transient,
        _ if error.contains_label(RETRYABLE_WRITE_ERROR) => Class::Transient,
        _ => Class::Other,
    }
}

fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_drivers_dump_each_servers_trouble_is_told() {
        let told = |dump: &str| {
            without_topology(format!(
                "Server selection timeout: No available servers. Topology: {dump}"
            ))
        };
        assert_eq!(
            told(
                r#"{ Type: ReplicaSetNoPrimary, Set Name: rs, Servers: [ { Address: 127.0.0.1:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {"RetryableError", "SystemOverloadedError"}, source: None, server response: None }, { Address: nowhere.invalid:2, Type: Unknown, Error: Kind: I/O error: failed to lookup address information: Name or service not known, labels: {}, source: None, server response: None } ] }"#
            ),
            "Server selection timeout: No available servers: \
             127.0.0.1:1: I/O error: Connection refused (os error 111); \
             nowhere.invalid:2: I/O error: failed to lookup address information: Name or service not known"
        );
        assert_eq!(
            told(
                "{ Type: ReplicaSetNoPrimary, Set Name: rs, Servers: [ { Address: a:1, Type: RsSecondary } ] }"
            ),
            "Server selection timeout: No available servers (ReplicaSetNoPrimary)"
        );
        let wrong = told("{ Type: ReplicaSetNoPrimary, Set Name: wrong, Servers: [  ] }");
        assert!(
            wrong.contains("the replica set `wrong`: correct `replicaSet`"),
            "{wrong}"
        );
        let other = "I/O error: Connection refused".to_owned();
        assert_eq!(without_topology(other.clone()), other);
    }

    #[test]
    fn credentials_are_taken_out_of_any_words_as_given_and_as_decoded() {
        let url = "mongodb://someone:c%40nary-word@127.0.0.1/db";
        let parsed = ConnectionString::parse(url).expect("a valid URL");
        let translator = Translator::new(url, &parsed);
        let words = translator.clean(format!(
            "login with c@nary-word or c%40nary-word or {url} failed"
        ));
        assert_eq!(
            words,
            "login with [redacted] or [redacted] or [redacted] failed"
        );
    }

    #[test]
    fn a_password_with_unescaped_signs_is_found_whole() {
        assert_eq!(user_info("mongodb://me:a@b/c@host/db"), Some("me:a@b/c"));
        assert_eq!(user_info("mongodb://host/db"), None);
    }

    #[test]
    fn atlas_has_one_code_for_a_full_quota_and_for_a_missing_right() {
        let quota = "you are over your space quota, using 513 MB of 512 MB";
        assert_eq!(no_writes(8000, quota), Some(NoWrites::Quota));
        let right = "user is not allowed to do action [insert] on [wa.commits]";
        assert_eq!(no_writes(8000, right), None);
        assert_eq!(no_writes(14031, ""), Some(NoWrites::DiskFull));
        assert_eq!(no_writes(371, ""), Some(NoWrites::Blocked));
        assert_eq!(no_writes(11000, quota), None);
    }

    #[test]
    fn a_lost_connection_is_transient_and_a_wrong_password_is_not() {
        let lost = Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(classify(&lost), Class::Transient);
        let odd = Error::custom("something else");
        assert_eq!(classify(&odd), Class::Other);
    }
}
