//! What to do in the Compose stack, where it is not what one does elsewhere: there, people have `.env`
//! and `make`, and no address to correct.

use sessionkeep_archive::store::{Finding, Severity};

/// Set by `docker-compose.yml`.
const VARIABLE: &str = "IN_SESSIONKEEP_STACK";

/// Whether this runs in the stack.
pub(super) fn is_here() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}

/// Puts the stack's remedies in the place of those that are right everywhere else.
pub(super) fn translate(findings: &mut [Finding]) {
    for finding in findings {
        if let Some(remedy) = remedy(finding) {
            finding.remedy = remedy.to_owned();
        }
    }
}

fn remedy(finding: &Finding) -> Option<&'static str> {
    if finding.severity == Severity::Good {
        return None;
    }
    let refused = [
        "Authentication failed",
        "AuthenticationFailed",
        "not authorized",
    ];
    let is_refused = refused.iter().any(|word| finding.detail.contains(word));
    match finding.subject {
        "settings" if finding.severity == Severity::Bad => {
            Some("correct it in .env, then `make restart`")
        }
        "store reachable" | "store" | "rights" if is_refused => Some(
            "`make mongo-init restart` gives MongoDB the user and password of .env; for a MongoDB elsewhere, \
             correct MONGO_URL in .env, then `make restart`",
        ),
        "rights" if finding.remedy.contains("readWrite") => {
            Some("`make mongo-init restart`; for a MongoDB elsewhere, give its user `readWrite`")
        }
        "store reachable" | "store" if finding.severity == Severity::Bad => Some(
            "`make ps` tells whether mongodb runs, `docker compose logs mongodb` why not; for a MongoDB elsewhere, \
             see that host and port of MONGO_URL in .env are right, and that it lets this machine in",
        ),
        "store" => Some(
            "fine: the session is in its folder on this machine. `make forward` keeps it in MongoDB again",
        ),
        "directory" => Some(
            "see the rights of the session's folder on this machine, and `docker compose config`",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(subject: &'static str, severity: Severity, detail: &str) -> String {
        let mut findings = [Finding {
            subject,
            severity,
            detail: detail.to_owned(),
            remedy: "add `tls=true` to the URL".to_owned(),
        }];
        translate(&mut findings);
        findings[0].remedy.clone()
    }

    #[test]
    fn a_refused_login_is_mended_by_make() {
        let detail = "SCRAM failure: Authentication failed.";
        for subject in ["store reachable", "store"] {
            let remedy = translated(subject, Severity::Bad, detail);
            assert!(remedy.contains("make mongo-init restart"), "{remedy}");
        }
        let remedy = translated("store reachable", Severity::Bad, "Connection refused");
        assert!(remedy.contains("make ps"), "{remedy}");
    }

    #[test]
    fn what_is_the_same_everywhere_stays() {
        let remedy = translated("free space", Severity::Bad, "1 MiB free");
        assert!(remedy.contains("tls=true"), "{remedy}");
        let remedy = translated("store", Severity::Good, "MongoDB at mongodb:27017");
        assert!(remedy.contains("tls=true"), "{remedy}");
    }
}
