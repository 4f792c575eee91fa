//! Secrets in files of their own: `MONGO_URL_FILE=/run/secrets/mongo_url` in place of `MONGO_URL`, as
//! secrets of Docker, Kubernetes and systemd are handed over, and as official images take them.

use std::collections::BTreeSet;
use std::path::Path;

use super::problem::Problem;
use super::registry;
use super::sources::{Env, ReadFile};

/// What such a variable's name ends with.
const SUFFIX: &str = "_FILE";

/// The variable that `name` names the file of, where that is one with a secret of ours.
pub(super) fn stands_for(name: &str) -> Option<&'static str> {
    let base = name.strip_suffix(SUFFIX)?;
    let secrets = registry::ALL.iter().filter(|setting| setting.secret);
    secrets
        .flat_map(registry::env_names)
        .find(|known| *known == base)
}

/// A name without what says that it names a file, and that.
pub(super) fn split(name: &str) -> (&str, &str) {
    match name.strip_suffix(SUFFIX) {
        Some(base) => (base, SUFFIX),
        None => (name, ""),
    }
}

/// The name of the variable that names the file of the secret `name`.
pub(super) fn name_of(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// Variables that a file was named for in place of a value.
#[derive(Debug, Default)]
pub(super) struct SecretFiles {
    /// The value is the file's.
    pub(super) read: BTreeSet<&'static str>,
    /// There is none, and why is told already.
    pub(super) unread: BTreeSet<&'static str>,
}

/// Moves the secrets whose files `env` names into it, under the names of what they stand for. A file's
/// content is a secret's only: it is in no problem.
pub(super) fn read(
    env: &mut Env,
    cwd: &Path,
    read_file: ReadFile,
    problems: &mut Vec<Problem>,
) -> SecretFiles {
    let mut files = SecretFiles::default();
    let named: Vec<(&'static str, String)> = env
        .iter()
        .filter_map(|(name, path)| Some((stands_for(name)?, path.clone())))
        .collect();
    for (name, path) in named {
        let by = name_of(name);
        env.remove(&by);
        if env.contains_key(name) {
            problems.push(Problem {
                name: format!("{name} and {by}"),
                value: None,
                reason: "are both set".to_owned(),
                remedy: "keep one of them".to_owned(),
            });
            files.unread.insert(name);
            continue;
        }
        match content(&by, &path, cwd, read_file) {
            Ok(secret) => {
                files.read.insert(name);
                env.insert(name.to_owned(), secret);
            }
            Err(problem) => {
                files.unread.insert(name);
                problems.push(problem);
            }
        }
    }
    files
}

fn content(by: &str, path: &str, cwd: &Path, read_file: ReadFile) -> Result<String, Problem> {
    let file = read_file(Some((by, Path::new(path))), cwd)?;
    let (shown, bytes) = file.unwrap_or_default();
    let problem = |reason: &str| Problem {
        name: by.to_owned(),
        value: Some(shown.display().to_string()),
        reason: reason.to_owned(),
        remedy: "write the secret into it, and nothing else".to_owned(),
    };
    let text = String::from_utf8(bytes).map_err(|_| problem("the file is no text in UTF-8"))?;
    match text.trim().is_empty() {
        true => Err(problem("the file is empty")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::sources::{Loaded, resolve};
    use crate::config::{ConfigErrors, Flags, file};

    use super::*;

    fn load(env: &[(&str, &str)], cwd: &Path) -> Result<Loaded, ConfigErrors> {
        let env = env.iter().map(|(name, value)| (name.into(), value.into()));
        resolve(&Flags::default(), env.collect(), cwd, file::read)
    }

    #[track_caller]
    fn problem(env: &[(&str, &str)], cwd: &Path) -> String {
        let errors = load(env, cwd).expect_err("wrong");
        let [problem] = &errors.problems[..] else {
            panic!("{errors:?}");
        };
        problem.to_string()
    }

    #[test]
    fn a_secret_is_read_from_the_file_that_a_variable_names_and_told_by_that_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("url"), "mongodb://u:canary@h/db\n").expect("write");
        fs::write(dir.path().join("token"), "canary-of-the-token\n").expect("write");
        let url = dir.path().join("url");
        let env = [
            ("MONGO_URL_FILE", url.to_str().expect("a text")),
            ("ADMIN_TOKEN_FILE", "token"),
            ("HEARTBEAT_URL_FILE", " "),
        ];
        let loaded = load(&env, dir.path()).expect("good");
        let token = loaded.settings.http.token.as_ref().expect("a token");
        assert_eq!(token.expose(), "canary-of-the-token");
        let source = |key| {
            let mut origins = loaded.origins.iter();
            let origin = origins.find(|origin| origin.key == key).expect("listed");
            assert!(!origin.value_shown.contains("canary"));
            origin.source.to_string()
        };
        assert_eq!(source("store.url"), "MONGO_URL_FILE");
        assert_eq!(source("http.token"), "ADMIN_TOKEN_FILE");
        assert_eq!(source("heartbeat.url"), "default", "empty is not set");
    }

    #[test]
    fn what_is_wrong_with_the_file_is_said_by_its_variable_and_nothing_of_its_content() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cwd = dir.path();
        fs::write(cwd.join("empty"), "\n").expect("write");
        fs::write(cwd.join("latin"), b"canary\xff").expect("write");
        fs::write(cwd.join("wrong"), "http://u:canary@h").expect("write");
        let missing = problem(&[("MONGO_URL_FILE", "missing")], cwd);
        assert!(missing.starts_with("MONGO_URL_FILE"), "{missing}");
        assert!(
            missing.contains("missing") && missing.contains("not found"),
            "{missing}"
        );
        let empty = problem(&[("MONGO_URL_FILE", "empty")], cwd);
        assert!(empty.contains("the file is empty"), "{empty}");
        let latin = problem(
            &[("ADMIN_TOKEN_FILE", "latin"), ("MONGO_ENABLED", "false")],
            cwd,
        );
        assert!(
            latin.contains("UTF-8") && !latin.contains("canary"),
            "{latin}"
        );
        let wrong = problem(&[("MONGO_URL_FILE", "wrong")], cwd);
        assert!(wrong.contains("store.url (MONGO_URL_FILE)"), "{wrong}");
        assert!(!wrong.contains("canary"), "{wrong}");
    }

    #[test]
    fn a_secret_that_is_given_twice_and_one_that_is_none_are_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cwd = dir.path();
        fs::write(cwd.join("token"), "a token that nobody guesses").expect("write");
        let off = ("MONGO_ENABLED", "false");
        let both = [off, ("ADMIN_TOKEN_FILE", "token"), ("ADMIN_TOKEN", "other")];
        let both = problem(&both, cwd);
        assert!(both.contains("ADMIN_TOKEN and ADMIN_TOKEN_FILE"), "{both}");
        let other = [off, ("SESSIONKEEP_DIR_FILE", "token")];
        assert!(problem(&other, cwd).contains("SESSIONKEEP_DIR_FILE"));
        let near = [off, ("SESSIONKEEP_HTTP_TOKEM_FILE", "token")];
        let near = problem(&near, cwd);
        assert!(near.contains("SESSIONKEEP_HTTP_TOKEN_FILE"), "{near}");
    }
}
