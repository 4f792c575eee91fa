//! What can be wrong with a MongoDB, looked at one thing after the other, for `sessionkeep doctor`.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mongodb::bson::{Document, doc};
use mongodb::options::{AuthMechanism, HostInfo, ServerAddress, Tls};

use super::MongoStore;
use super::commits::{COMMITS, key};
use super::errors::Fault;
use super::lease::LEASES;
use super::packs::{CHUNKS, FILES};
use sessionkeep_archive::store::{Finding, Severity, StoreError};
use sessionkeep_core::record::PackId;

/// The name of the probe documents. No archive can be named so, and nothing lists it.
const PROBE: &str = "(doctor)";
/// Beyond this the clocks are worth a word.
const SKEW: Duration = Duration::from_secs(2);
/// Below this there is hardly room for a compaction.
const LITTLE_SPACE: u64 = 512 << 20;

fn finding(
    subject: &'static str,
    severity: Severity,
    detail: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        subject,
        severity,
        detail: detail.into(),
        remedy: remedy.into(),
    }
}

fn good(subject: &'static str, detail: impl Into<String>) -> Finding {
    finding(subject, Severity::Good, detail, "")
}

/// An error with its cause in one line.
fn told(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Where a host is, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    /// This machine.
    Loopback,
    /// A private network: the container network, a cloud's internal one.
    Private,
    /// The internet, for all we know.
    Public,
}

fn distance(host: &str) -> Distance {
    let host = host.trim_matches(['[', ']']);
    if let Ok(address) = host.parse::<IpAddr>() {
        let (loopback, private) = match address {
            IpAddr::V4(ip) => (ip.is_loopback(), ip.is_private() || ip.is_link_local()),
            IpAddr::V6(ip) => (
                ip.is_loopback(),
                ip.is_unique_local() || ip.is_unicast_link_local(),
            ),
        };
        return match (loopback, private) {
            (true, _) => Distance::Loopback,
            (_, true) => Distance::Private,
            _ => Distance::Public,
        };
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let internal = ["localhost", "local", "internal", "lan", "svc", "home.arpa"];
    if name == "localhost" || name.ends_with(".localhost") {
        Distance::Loopback
    } else if !name.contains('.')
        || internal
            .iter()
            .any(|end| name.ends_with(&format!(".{end}")))
    {
        // A name without a dot is a service of the same container network.
        Distance::Private
    } else {
        Distance::Public
    }
}

impl MongoStore {
    /// The server's description of itself; needs no right.
    pub(super) async fn hello(&self) -> Result<Document, Fault> {
        let database = self.database().await?;
        Ok(database.run_command(doc! { "hello": 1 }).await?)
    }

    fn farthest(&self) -> Distance {
        match &self.target.host_info {
            HostInfo::HostIdentifiers(hosts) => hosts
                .iter()
                .map(|host| match host {
                    ServerAddress::Tcp { host, .. } => distance(host),
                    _ => Distance::Loopback,
                })
                .max()
                .unwrap_or(Distance::Public),
            HostInfo::DnsRecord(name) => distance(name),
            _ => Distance::Public,
        }
    }

    pub(super) async fn examine_all(&self) -> Vec<Finding> {
        let mut findings = vec![self.encryption(), self.authentication()];
        let begun = Instant::now();
        let before = SystemTime::now();
        let hello = self.within("answer", self.hello()).await;
        let took = begun.elapsed();
        match hello {
            Err(error) => {
                findings.insert(
                    0,
                    finding(
                        "store reachable",
                        Severity::Bad,
                        told(&error),
                        match error {
                            StoreError::Denied { .. } => {
                                "check user name, password and `authSource` in the URL"
                            }
                            _ => {
                                "check that the database runs, that host and port are right, and \
                                 that this network (or Atlas' access list) lets us in"
                            }
                        },
                    ),
                );
                return findings;
            }
            Ok(hello) => {
                // Asked again over the connection that is now open: the first answer includes
                // finding the server and logging in.
                let again = Instant::now();
                let _ = self.within("answer", self.hello()).await;
                findings.insert(0, self.reachable(&hello, took, again.elapsed()).await);
                findings.push(clock(&hello, before, took));
            }
        }
        let rights = self.rights().await;
        let may_write = rights.severity == Severity::Good;
        findings.push(rights);
        if may_write {
            findings.push(self.durability().await);
        }
        match self.find_leaks().await {
            Ok(leaks) if leaks.is_empty() => {
                findings.push(good("collections", "keep what is written to them"));
            }
            Ok(leaks) => findings.extend(
                leaks
                    .into_iter()
                    .map(|leak| finding("collections", Severity::Bad, leak.detail, leak.remedy)),
            ),
            Err(error) => {
                findings.push(finding("collections", Severity::Warning, told(&error), ""));
            }
        }
        findings.extend(self.space().await);
        findings
    }

    fn encryption(&self) -> Finding {
        const SUBJECT: &str = "connection encrypted";
        let is_srv = matches!(self.target.host_info, HostInfo::DnsRecord(_));
        match (&self.target.tls, is_srv) {
            (Some(Tls::Enabled(_)), _) | (None, true) => good(SUBJECT, "TLS is on"),
            _ if self.farthest() == Distance::Public => finding(
                SUBJECT,
                Severity::Warning,
                "TLS is off, and the host is neither this machine nor in a private network",
                "add `tls=true` to the URL",
            ),
            _ => good(SUBJECT, "TLS is off; the host is in a private network"),
        }
    }

    fn authentication(&self) -> Finding {
        const SUBJECT: &str = "login";
        let credential = self.target.credential.as_ref();
        let by_certificate =
            credential.is_some_and(|c| matches!(c.mechanism, Some(AuthMechanism::MongoDbX509)));
        if by_certificate || credential.is_some_and(|c| c.username.is_some()) {
            good(SUBJECT, "the URL has credentials")
        } else if self.farthest() == Distance::Loopback {
            good(SUBJECT, "without credentials, on this machine")
        } else {
            finding(
                SUBJECT,
                Severity::Warning,
                "the URL has no credentials: whoever reaches the database can read the login",
                "create a user with `readWrite` on this one database and put it into the URL",
            )
        }
    }

    async fn reachable(&self, hello: &Document, first: Duration, next: Duration) -> Finding {
        let kind = if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
            "sharded cluster".to_owned()
        } else if let Ok(name) = hello.get_str("setName") {
            let members = hello.get_array("hosts").map_or(0, Vec::len);
            format!("replica set {name} of {members}")
        } else {
            "standalone".to_owned()
        };
        let version = self
            .within("tell its version", async {
                let database = self.database().await?;
                let info = database.run_command(doc! { "buildInfo": 1 }).await?;
                Ok(info.get_str("version").unwrap_or("unknown").to_owned())
            })
            .await
            .unwrap_or_else(|_| "unknown".to_owned());
        let detail = format!(
            "{}; version {version}, {kind}; answers in {:.1} ms (first contact {} ms)",
            self.described,
            next.as_secs_f64() * 1000.0,
            first.as_millis(),
        );
        let major = version
            .split('.')
            .next()
            .and_then(|n| n.parse::<u32>().ok());
        // Updates by aggregation and `$$NOW`, which the lease is made of, came with 4.2.
        if major.is_some_and(|major| major < 4) || version.starts_with("4.0.") {
            return finding(
                "store reachable",
                Severity::Bad,
                detail,
                "install MongoDB 4.2 or newer",
            );
        }
        good("store reachable", detail)
    }

    /// Writes, reads and deletes a probe in each collection.
    async fn rights(&self) -> Finding {
        const SUBJECT: &str = "rights";
        let id = format!("{PROBE}-{}", PackId::generate());
        for name in [COMMITS, LEASES, FILES, CHUNKS] {
            let probe = match name {
                COMMITS => doc! { "_id": key(&id, 0), "format": 0 },
                // Fits the unique index over the chunks, whoever else examines now.
                CHUNKS => doc! { "_id": &id, "files_id": &id, "n": 0 },
                _ => doc! { "_id": &id, "format": 0 },
            };
            let own = doc! { "_id": probe.get("_id").cloned() };
            let used = self
                .within("write, read and delete a probe", async {
                    let collection = self.collection(name).await?;
                    collection.insert_one(probe).await?;
                    collection.find_one(own.clone()).await?;
                    collection.delete_one(own.clone()).await?;
                    Ok(())
                })
                .await;
            if let Err(error) = used {
                // The insert may have come through; a second attempt to delete does no harm.
                let _ = self
                    .within("delete a probe", async {
                        self.collection(name).await?.delete_one(own).await?;
                        Ok(())
                    })
                    .await;
                let remedy = match &error {
                    StoreError::WritesRefused { why, .. } => why.remedy().to_owned(),
                    _ => format!("grant `readWrite` on the database `{}`", self.database),
                };
                let detail = format!("collection `{name}`: {}", told(&error));
                return finding(SUBJECT, Severity::Bad, detail, remedy);
            }
        }
        good(SUBJECT, "can insert, read and delete in all collections")
    }

    /// One write that a majority must have in its journals.
    async fn durability(&self) -> Finding {
        const SUBJECT: &str = "durable writes";
        let id = format!("{PROBE}-{}", PackId::generate());
        let begun = Instant::now();
        let written = self
            .within("confirm a majority write", async {
                let leases = self.collection(LEASES).await?;
                leases.insert_one(doc! { "_id": &id, "format": 0 }).await?;
                Ok(())
            })
            .await;
        let took = begun.elapsed();
        let _ = self
            .within("delete a probe", async {
                let leases = self.collection(LEASES).await?;
                leases.delete_one(doc! { "_id": &id }).await?;
                Ok(())
            })
            .await;
        match written {
            Ok(()) => good(
                SUBJECT,
                format!(
                    "a majority has a write in its journal after {:.1} ms",
                    took.as_secs_f64() * 1000.0
                ),
            ),
            Err(error) => finding(
                SUBJECT,
                Severity::Bad,
                told(&error),
                "check that a majority of the replica set's members is up",
            ),
        }
    }

    /// Room on the server's disk, where the server tells.
    async fn space(&self) -> Option<Finding> {
        const SUBJECT: &str = "free space";
        let stats = self
            .within("tell its free space", async {
                let database = self.database().await?;
                Ok(database.run_command(doc! { "dbStats": 1 }).await?)
            })
            .await
            .ok()?;
        let number = |field: &str| {
            let value = stats.get(field)?;
            let number = value
                .as_f64()
                .or_else(|| value.as_i64().map(|n| n as f64))
                .or_else(|| value.as_i32().map(f64::from))?;
            Some(number.max(0.0) as u64)
        };
        let total = number("fsTotalSize")?;
        let free = total.saturating_sub(number("fsUsedSize")?);
        let detail = format!(
            "{} MiB free of {} MiB; this database takes {} MiB",
            free >> 20,
            total >> 20,
            number("storageSize").unwrap_or(0) >> 20
        );
        Some(if total > 0 && free < LITTLE_SPACE {
            finding(
                SUBJECT,
                Severity::Warning,
                detail,
                "make room on the database's disk before writes fail",
            )
        } else {
            good(SUBJECT, detail)
        })
    }
}

fn clock(hello: &Document, before: SystemTime, took: Duration) -> Finding {
    const SUBJECT: &str = "clocks";
    let Ok(theirs) = hello.get_datetime("localTime") else {
        return finding(
            SUBJECT,
            Severity::Warning,
            "the server does not tell its time",
            "",
        );
    };
    // The answer was made at some time during the call; what the call took is no difference.
    let begun = before.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ended = begun + took;
    let theirs = Duration::from_millis(theirs.timestamp_millis().unsigned_abs());
    let apart = begun
        .saturating_sub(theirs)
        .max(theirs.saturating_sub(ended));
    let detail = format!(
        "this machine and the server are {:.1} s apart",
        apart.as_secs_f64()
    );
    if apart > SKEW {
        finding(
            SUBJECT,
            Severity::Warning,
            format!("{detail}; leases go by the server's clock, so no harm comes of it there"),
            "set both clocks by NTP: the times in `sessionkeep log` are this machine's",
        )
    } else {
        good(SUBJECT, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart_by_what_lies_between() {
        let cases = [
            ("127.0.0.1", Distance::Loopback),
            ("[::1]", Distance::Loopback),
            ("localhost", Distance::Loopback),
            ("mongo", Distance::Private),
            ("10.1.2.3", Distance::Private),
            ("mongo.railway.internal", Distance::Private),
            ("db.default.svc", Distance::Private),
            ("cluster0.example.mongodb.net", Distance::Public),
            ("8.8.8.8", Distance::Public),
        ];
        for (host, expected) in cases {
            assert_eq!(distance(host), expected, "{host}");
        }
    }

    #[test]
    fn a_slow_answer_is_not_taken_for_a_wrong_clock() {
        let now = SystemTime::now();
        let hello = doc! { "localTime": mongodb::bson::DateTime::from_system_time(now) };
        let slow = clock(&hello, now - Duration::from_secs(5), Duration::from_secs(6));
        assert_eq!(slow.severity, Severity::Good);
        let wrong = clock(&hello, now - Duration::from_secs(5), Duration::from_secs(1));
        assert_eq!(wrong.severity, Severity::Warning);
    }
}
