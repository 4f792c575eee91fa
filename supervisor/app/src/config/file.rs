//! `sessionkeep.yaml`: finding it, and reading it into keys, texts and line numbers.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::problem::{Problem, shown, shown_name};
use super::values::is_quoted;
use super::{paths, registry};
use sessionkeep_core::suggest;

/// Where the file is looked for when nobody names it.
pub(super) const PLACES: [&str; 2] = ["sessionkeep.yaml", "/etc/sessionkeep.yaml"];

/// Settings are a screenful; what is larger is another file.
const SIZE_MAX: u64 = 256 * 1024;

/// No setting is below more than a few brackets. The reader of YAML goes through all that are open at
/// each next one: of a file full of them it would take half a minute to say that they are too many.
const DEPTH_MAX: usize = 64;

/// A value that the file gives.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    pub(super) text: String,
    pub(super) line: Option<usize>,
}

/// Reads the file that is `named`, which may be another than one of settings, or else the first of [`PLACES`] (below `cwd`) that exists.
pub(super) fn read(
    named: Option<(&str, &Path)>,
    cwd: &Path,
) -> Result<Option<(PathBuf, Vec<u8>)>, Problem> {
    let failed = |name: String, path: Option<&Path>, error: &std::io::Error| Problem {
        name,
        value: path.map(|path| shown(&path.to_string_lossy())),
        reason: format!("the file cannot be read ({})", error.kind()),
        remedy: "check that it is there and that this user may read it".to_owned(),
    };
    if let Some((by, path)) = named {
        let text = path.to_string_lossy();
        let problem = |reason, remedy| Problem {
            name: by.to_owned(),
            value: Some(shown(&text)),
            reason,
            remedy,
        };
        if is_quoted(text.trim()) {
            let reason = "begins and ends with a quote, which is part of the name".to_owned();
            return Err(problem(reason, "write it without quotes".to_owned()));
        }
        let path = paths::path(text.trim()).map_err(|why| problem(why.reason, why.remedy))?;
        let content =
            slurp(&cwd.join(&path)).map_err(|error| failed(by.to_owned(), Some(&path), &error))?;
        return Ok(Some((path, content)));
    }
    for place in PLACES {
        match slurp(&cwd.join(place)) {
            Ok(content) => return Ok(Some((place.into(), content))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(place.to_owned(), None, &error)),
        }
    }
    Ok(None)
}

fn slurp(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(SIZE_MAX + 1)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// Reads the file's content. Every problem is collected; `name` is the file's name in them.
pub(super) fn parse(name: &str, content: &[u8], problems: &mut Vec<Problem>) -> Vec<Entry> {
    let (text, map) = match mapping(content) {
        Ok(Some(found)) => found,
        Ok(None) => return Vec::new(),
        Err((reason, remedy)) => {
            problems.push(Problem {
                name: name.to_owned(),
                value: None,
                reason,
                remedy: remedy.to_owned(),
            });
            return Vec::new();
        }
    };
    let mut walk = Walk {
        name,
        text,
        problems,
        entries: Vec::new(),
    };
    walk.mapping(&[], map);
    walk.entries
}

/// The file's text and what it says; `None` for a file that says nothing.
fn mapping(content: &[u8]) -> Result<Option<(&str, serde_yaml::Mapping)>, (String, &'static str)> {
    const LINES: &str = "write `key: value` lines, indented below their section";
    if content.len() as u64 > SIZE_MAX {
        return Err((
            "is too large for a settings file".to_owned(),
            "name another file",
        ));
    }
    let text = std::str::from_utf8(content)
        .map_err(|_| ("is no text in UTF-8".to_owned(), "save it as UTF-8"))?;
    // Some editors put a mark there that says it is UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if depth(text) > DEPTH_MAX {
        let reason = "is nested far deeper than any setting".to_owned();
        return Err((reason, LINES));
    }
    match serde_yaml::from_str::<Value>(text) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Mapping(map)) => Ok(Some((text, map))),
        Ok(_) => Err(("does not consist of settings".to_owned(), LINES)),
        // The reader's own words may repeat what stands in the file.
        Err(error) => {
            let tab = text
                .lines()
                .position(|line| line.trim_start_matches(' ').starts_with('\t'));
            if let Some(at) = tab {
                let reason = format!("is not valid YAML: line {} begins with a tab", at + 1);
                return Err((reason, "indent with blanks"));
            }
            let place = error.location().map_or_else(String::new, |at| {
                format!(" at line {}, column {}", at.line(), at.column())
            });
            Err((
                format!("is not valid YAML{place}, or has a key twice"),
                LINES,
            ))
        }
    }
}

/// How many brackets are open at a time, wherever they stand: what is in quotes is not told apart.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

struct Walk<'a> {
    name: &'a str,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn mapping(&mut self, above: &[String], map: serde_yaml::Mapping) {
        for (key, value) in map {
            let Value::String(key) = key else {
                self.complain(
                    above,
                    "has a key that is no text",
                    "see the list of settings",
                );
                continue;
            };
            let path: Vec<String> = above.iter().cloned().chain([key]).collect();
            self.value(&path, value);
        }
    }

    fn value(&mut self, path: &[String], value: Value) {
        let dotted = path.join(".");
        // `store: URL` is short for `store: {url: URL}`.
        let setting = registry::find(&dotted).or_else(|| {
            (dotted == "store" && !value.is_mapping())
                .then(|| registry::find("store.url"))
                .flatten()
        });
        let section = format!("{dotted}.");
        let known = registry::ALL.iter().any(|s| s.key.starts_with(&section));
        // `dir` is a value, and has `dir.owner` below it.
        let setting = setting.filter(|_| !(known && value.is_mapping()));
        let Some(setting) = setting else {
            match value {
                Value::Mapping(map) if known => self.mapping(path, map),
                Value::Null if known => {}
                _ if known => self.complain(path, "is a section", "write its settings below it"),
                _ => self.unknown(path, &dotted),
            }
            return;
        };
        let text = match value {
            Value::Null => return,
            Value::String(text) => text,
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Sequence(values) if setting.form == registry::Form::List => {
                let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
                let Some(texts) = texts else {
                    self.complain(
                        path,
                        "is a list of something else than texts",
                        &format!("write {}", setting.takes),
                    );
                    return;
                };
                texts.join(", ")
            }
            Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
                self.complain(path, "takes one value", &format!("write {}", setting.takes));
                return;
            }
        };
        if text.trim().is_empty() {
            return;
        }
        if self.entries.iter().any(|entry| entry.key == setting.key) {
            self.complain(path, "is given twice in the file", "keep one of them");
            return;
        }
        self.entries.push(Entry {
            key: setting.key,
            text,
            line: line_of(self.text, path),
        });
    }

    fn unknown(&mut self, path: &[String], dotted: &str) {
        let remedy = suggest::nearest(dotted, registry::ALL.iter().map(|s| s.key)).map_or_else(
            || "see `sessionkeep config --reference`".to_owned(),
            |known| format!("did you mean `{known}`?"),
        );
        self.complain(path, "is no known setting", &remedy);
    }

    fn complain(&mut self, path: &[String], reason: &str, remedy: &str) {
        let line =
            line_of(self.text, path).map_or_else(String::new, |line| format!(" line {line}"));
        let dotted = path.join(".");
        let name = shown_name(&dotted).unwrap_or("a key");
        self.problems.push(Problem {
            name: format!("{name} ({}{line})", self.name),
            value: None,
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

/// The line on which a key stands. The reader keeps no positions, so this looks for each part of
/// the key in turn, below the one before; good for block style, and silent where it finds nothing.
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let mut lines = text.lines().enumerate();
    let mut found = None;
    for part in path {
        let (at, _) = lines.by_ref().find(|(_, line)| {
            let line = line.trim_start().trim_start_matches(['"', '\'']);
            line.strip_prefix(part.as_str()).is_some_and(|rest| {
                rest.trim_start_matches(['"', '\''])
                    .trim_start()
                    .starts_with(':')
            })
        })?;
        found = Some(at + 1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_text(text: &str) -> (Vec<(&'static str, String)>, Vec<String>) {
        let mut problems = Vec::new();
        let entries = parse("f.yaml", text.as_bytes(), &mut problems);
        (
            entries.into_iter().map(|e| (e.key, e.text)).collect(),
            problems.iter().map(Problem::to_string).collect(),
        )
    }

    #[test]
    fn sections_dots_and_the_short_store_are_all_read() {
        let (entries, problems) = read_text(
            "store: sqlite:x.db\nstop:\n  total: 20s\n  flush: 5s\nlog.level: debug\nhttp: {port: 0}\nsync:\nlease: ~\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let (list, problems) = read_text("http:\n  trusted_proxies: [10.0.0.0/8, '::1']\n");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            list,
            [("http.trusted_proxies", "10.0.0.0/8, ::1".to_owned())]
        );
        assert_eq!(
            entries,
            [
                ("store.url", "sqlite:x.db".to_owned()),
                ("stop.total", "20s".to_owned()),
                ("stop.flush", "5s".to_owned()),
                ("log.level", "debug".to_owned()),
                ("http.port", "0".to_owned()),
            ]
        );
    }

    #[test]
    fn what_an_editor_of_windows_adds_does_no_harm_and_a_tab_is_named() {
        let (entries, problems) =
            read_text("\u{feff}stop:\r\n  total: 20s\r\nlog.level: debug\r\n");
        assert_eq!(problems, Vec::<String>::new());
        let expected = [("stop.total", "20s"), ("log.level", "debug")];
        assert_eq!(entries, expected.map(|(key, text)| (key, text.to_owned())));
        let (_, problems) = read_text("stop:\n\ttotal: 20s\n");
        assert!(
            problems[0].contains("line 2 begins with a tab"),
            "{problems:?}"
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let (_, problems) = read_text("dir: x\nstore:\n  url: none\n  wiat: 3s\ncolour: red\n");
        assert_eq!(
            problems,
            [
                "store.wiat (f.yaml line 4): is no known setting; did you mean `store.wait`?",
                "colour (f.yaml line 5): is no known setting; see `sessionkeep config --reference`",
            ]
        );
    }

    #[test]
    fn what_is_no_setting_is_refused_without_repeating_it() {
        for text in [
            "mongodb://u:canary@h/db",
            "mongodb://u:canary@h: db",
            "store: [canary]",
            "http.trusted_proxies: [10.0.0.1, [canary]]",
            "store:\n  url: {canary: canary}",
            "dir: a\ndir: canary",
            "log: canary",
            "dir: !canary x",
            "? [canary]\n: x",
            "a: b: canary",
            "\tx: canary\n\t- y",
            "stop.total: 1s\nstop: {total: 2s}\n",
        ] {
            let (_, problems) = read_text(text);
            assert!(!problems.is_empty(), "{text}");
            assert!(!problems.concat().contains("canary"), "{problems:?}");
        }
    }

    #[test]
    fn a_file_that_is_nested_without_end_is_refused_and_not_worked_through() {
        for open in ["[", "{", "{\"a\":", "- ["] {
            let (_, problems) = read_text(&open.repeat(40_000));
            assert!(problems[0].contains("nested far deeper"), "{problems:?}");
        }
        let (entries, problems) = read_text("http: {port: 0}\nhttp.token: '[[[{'\n");
        assert_eq!((entries.len(), problems.len()), (2, 0), "{problems:?}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(content in prop::collection::vec(any::<u8>(), 0..600)) {
            parse("f.yaml", &content, &mut Vec::new());
        }

        #[test]
        fn arbitrary_yaml_like_text_never_panics(content in "[a-z.:{}\\[\\]&*!?|>%@\"'#, \n-]{0,200}") {
            parse("f.yaml", content.as_bytes(), &mut Vec::new());
        }
    }
}
