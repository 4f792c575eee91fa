//! `docs/log-messages.md` has each message that the program logs at info and above, with its level and
//! its fields, and no other. The messages are read from the sources, so that none is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What is known of messages: by area and message.
type Messages = BTreeMap<(String, String), Event>;

/// How a message is logged. One that several places log has the levels and the fields of all of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Event {
    levels: BTreeSet<String>,
    fields: BTreeSet<String>,
}

#[test]
fn the_page_has_each_message_of_the_sources_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page =
        fs::read_to_string(root.join("../../docs/log-messages.md")).expect("the page is there");
    let mut files = Vec::new();
    for part in fs::read_dir(root.join("..")).expect("the crates") {
        let part = part.expect("an entry").path();
        if !part.join("Cargo.toml").exists() {
            continue;
        }
        let src = part.join("src");
        // The binary's modules are areas of their own; another crate is one.
        match part.ends_with("app") {
            true => read(&src, &src, &mut files),
            false => read(&root.join(".."), &src, &mut files),
        }
    }
    let Scan { messages, unread } = scan(&files);
    assert!(
        unread.is_empty(),
        "it cannot be told what these say: {unread:#?}"
    );
    assert!(messages.len() > 100, "only {} were found", messages.len());
    let listed = documented(&page);
    let without = |all: &Messages, others: &Messages| -> Vec<String> {
        let only = all.iter().filter(|(key, _)| !others.contains_key(key));
        only.map(shown).collect()
    };
    let differs = |(key, event): &(&(String, String), &Event)| {
        listed.get(*key).is_some_and(|listed| listed != *event)
    };
    let missing = without(&messages, &listed);
    let stale = without(&listed, &messages);
    let other: Vec<String> = messages.iter().filter(differs).map(shown).collect();
    assert!(
        missing.is_empty() && stale.is_empty() && other.is_empty(),
        "docs/log-messages.md\n\
         lacks: {missing:#?}\n\
         has, and nothing logs it: {stale:#?}\n\
         has with other levels or fields than: {other:#?}"
    );
}

fn shown(((area, message), event): (&(String, String), &Event)) -> String {
    let list = |of: &BTreeSet<String>| of.iter().cloned().collect::<Vec<_>>().join(", ");
    let (levels, fields) = (list(&event.levels), list(&event.fields));
    format!("[{}] {message} ({levels}; {fields})", area.to_uppercase())
}

// ---- The page. ----

/// The rows of the tables, which are sorted; each table has a heading such as `## [BOOT]`.
fn documented(page: &str) -> Messages {
    let mut messages = Messages::new();
    let mut area = String::new();
    let mut before = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let name = heading
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'));
            area = name.unwrap_or_default().to_lowercase();
            before.clear();
        }
        let Some(row) = line.strip_prefix("| `") else {
            continue;
        };
        let (message, rest) =
            code_span(row).expect("a message ends with the backticks it begins with");
        let cells: Vec<&str> = rest.split('|').map(str::trim).collect();
        let ["", levels, fields, meaning, next, ""] = cells[..] else {
            panic!("a row has five columns: {line}");
        };
        assert!(
            !meaning.is_empty() && !next.is_empty(),
            "a column is empty: {line}"
        );
        assert!(
            before < message,
            "a message is not in its place, or twice: {line}"
        );
        let list = |cell: &str| -> BTreeSet<String> {
            let names = cell.split(',').map(|name| name.trim().trim_matches('`'));
            names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let (levels, fields) = (list(levels), list(fields));
        before.clone_from(&message);
        messages.insert((area.clone(), message), Event { levels, fields });
    }
    messages
}

/// The text of a code span without its first backtick, and what follows. A text that has backticks
/// itself stands between more of them, and between blanks.
fn code_span(row: &str) -> Option<(String, &str)> {
    let text = row.trim_start_matches('`');
    let fence = "`".repeat(row.len() - text.len() + 1);
    let (text, rest) = text.split_once(&fence)?;
    let padded = text
        .strip_prefix(' ')
        .and_then(|text| text.strip_suffix(' '));
    Some((padded.unwrap_or(text).to_owned(), rest))
}

// ---- The sources. ----

/// What the sources log.
#[derive(Debug, Default)]
struct Scan {
    messages: Messages,
    /// Invocations that it cannot read.
    unread: Vec<String>,
}

/// A file's path below `src`, and its text.
type Source = (PathBuf, String);

fn read(src: &Path, dir: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            // What is only there to be tested logs nothing that an operator reads.
            if name != "tests" && name != "fuzzing" {
                read(src, &path, files);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("a source");
            files.push((
                path.strip_prefix(src).expect("it is below").to_owned(),
                text,
            ));
        }
    }
}

fn scan(files: &[Source]) -> Scan {
    let (mut sources, mut tests) = (Vec::new(), Vec::new());
    for (path, text) in files {
        let tokens = without_tests(&tokens(text), path, &mut tests);
        sources.push((path, tokens));
    }
    let is_test = |path: &Path| {
        tests
            .iter()
            .any(|test| path.with_extension("").starts_with(test))
    };
    sources.retain(|(path, _)| !is_test(path));
    let mut found = Scan::default();
    for (path, tokens) in &sources {
        for at in 0..tokens.len() {
            if let Some(event) = Invocation::at(tokens, at, path) {
                match event.and_then(|event| event.messages(tokens, at, &sources)) {
                    Ok((messages, area, event)) => found.add(messages, &area, &event),
                    Err(why) => found.unread.push(format!("{}: {why}", path.display())),
                }
            }
            if let Some((message, area, event)) = written_by_hand(tokens, at) {
                found.add(vec![message], &area, &event);
            }
        }
    }
    found
}

impl Scan {
    fn add(&mut self, messages: Vec<String>, area: &str, event: &Event) {
        for message in messages {
            let of = self.messages.entry((area.to_owned(), message)).or_default();
            of.levels.extend(event.levels.iter().cloned());
            of.fields.extend(event.fields.iter().cloned());
        }
    }
}

/// A piece of a source. Comments are none.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    /// A name, a keyword, a number, a character.
    Word(&'a str),
    /// What a string literal says.
    Text(String),
    /// Any other character.
    Sign(char),
}

use Token::{Sign, Text, Word};

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = rest.trim_start();
        } else if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = after_comment(rest);
        } else if let Some((text, after)) = raw_string(rest).or_else(|| string(rest)) {
            found.push(Text(text));
            rest = after;
        } else if let Some(len) = char_literal(rest) {
            found.push(Word(&rest[..len]));
            rest = &rest[len..];
        } else if is_word(c) {
            let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            found.push(Word(&rest[..len]));
            rest = &rest[len..];
        } else {
            found.push(Sign(c));
            rest = &rest[c.len_utf8()..];
        }
    }
    found
}

/// What follows a comment, which may hold others.
fn after_comment(text: &str) -> &str {
    let (mut rest, mut depth) = (&text[2..], 1);
    while depth > 0 {
        let Some(at) = rest.find(['*', '/']) else {
            return "";
        };
        rest = &rest[at..];
        let len = match rest.as_bytes() {
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            _ => 1,
        };
        rest = &rest[len..];
    }
    rest
}

fn raw_string(text: &str) -> Option<(String, &str)> {
    let hashes = text
        .strip_prefix(['b', 'c'])
        .unwrap_or(text)
        .strip_prefix('r')?;
    let inner = hashes.trim_start_matches('#');
    let end = format!("\"{}", &hashes[..hashes.len() - inner.len()]);
    let (said, rest) = inner.strip_prefix('"')?.split_once(&end)?;
    Some((said.to_owned(), rest))
}

fn string(text: &str) -> Option<(String, &str)> {
    let mut rest = text
        .strip_prefix(['b', 'c'])
        .unwrap_or(text)
        .strip_prefix('"')?;
    let mut said = String::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((said, rest)),
            '\\' => rest = escape(rest, &mut said)?,
            c => said.push(c),
        }
    }
}

/// Adds what stands behind a backslash; gives what follows.
fn escape<'a>(text: &'a str, said: &mut String) -> Option<&'a str> {
    let c = text.chars().next()?;
    let rest = &text[c.len_utf8()..];
    let (c, rest) = match c {
        // The line goes on in the next one.
        '\n' => return Some(rest.trim_start()),
        'n' => ('\n', rest),
        'r' => ('\r', rest),
        't' => ('\t', rest),
        '0' => ('\0', rest),
        'x' => {
            let code = u8::from_str_radix(rest.get(..2)?, 16).ok()?;
            (char::from(code), rest.get(2..)?)
        }
        'u' => {
            let (digits, rest) = rest.strip_prefix('{')?.split_once('}')?;
            let code = u32::from_str_radix(&digits.replace('_', ""), 16).ok()?;
            (char::from_u32(code)?, rest)
        }
        c => (c, rest),
    };
    said.push(c);
    Some(rest)
}

/// How long the character literal is that the text begins with. A lifetime is none.
fn char_literal(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('b').unwrap_or(text).strip_prefix('\'')?;
    let mut len = inner.chars().next()?.len_utf8();
    if inner.starts_with('\\') {
        len += inner[len..].chars().next()?.len_utf8();
        len += inner[len..].find('\'')?;
    }
    inner[len..]
        .starts_with('\'')
        .then(|| text.len() - inner.len() + len + 1)
}

/// Where the group ends that is opened at `open`.
fn end_of_group(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Sign('(' | '[' | '{') => depth += 1,
            Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// What stands between commas, as in a call.
fn arguments<'t, 'a>(inside: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let (mut found, mut begun, mut depth) = (Vec::new(), 0, 0);
    for (at, token) in inside.iter().enumerate() {
        match token {
            Sign('(' | '[' | '{') => depth += 1,
            Sign(')' | ']' | '}') => depth -= 1,
            Sign(',') if depth == 0 => {
                found.push(&inside[begun..at]);
                begun = at + 1;
            }
            _ => {}
        }
    }
    found.push(&inside[begun..]);
    found.retain(|argument| !argument.is_empty());
    found
}

/// Leaves out what is compiled for tests only. Files that are modules of that kind are added to `tests`,
/// without their extension.
fn without_tests<'a>(all: &[Token<'a>], path: &Path, tests: &mut Vec<PathBuf>) -> Vec<Token<'a>> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let base = match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => dir.to_owned(),
        _ => path.with_extension(""),
    };
    let only_tests = tokens("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut rest = all;
    while let Some(token) = rest.first() {
        let Some(len) = rest.strip_prefix(&only_tests[..]).and_then(item) else {
            kept.push(token.clone());
            rest = &rest[1..];
            continue;
        };
        let item = &rest[..only_tests.len() + len];
        if let [.., Word("mod"), Word(name), Sign(';')] = item {
            tests.push(base.join(name));
            let elsewhere = item.windows(3).find_map(|three| match three {
                [Word("path"), Sign('='), Text(to)] => Some(dir.join(to).with_extension("")),
                _ => None,
            });
            tests.extend(elsewhere);
        }
        rest = &rest[item.len()..];
    }
    kept
}

/// How long the item is that these begin with; `None` where it is a statement, a field, an arm.
fn item(tokens: &[Token<'_>]) -> Option<usize> {
    const ITEMS: [&str; 13] = [
        "async", "const", "enum", "extern", "fn", "impl", "mod", "static", "struct", "trait",
        "type", "unsafe", "use",
    ];
    let mut at = 0;
    while let [Sign('#'), Sign('['), ..] = &tokens[at..] {
        at = end_of_group(tokens, at + 1)? + 1;
    }
    if let Word("pub") = tokens.get(at)? {
        at += 1;
        if let Sign('(') = tokens.get(at)? {
            at = end_of_group(tokens, at)? + 1;
        }
    }
    if !matches!(tokens.get(at)?, Word(word) if ITEMS.contains(word)) {
        return None;
    }
    let is_use = tokens[at] == Word("use");
    loop {
        match tokens.get(at)? {
            Sign(';') => return Some(at + 1),
            Sign('{') if !is_use => return Some(end_of_group(tokens, at)? + 1),
            Sign('(' | '[' | '{') => at = end_of_group(tokens, at)? + 1,
            _ => at += 1,
        }
    }
}

/// A macro that logs: `info!(target: "boot", seq, "restored")`.
struct Invocation<'t> {
    area: String,
    event: Event,
    /// The message, or what it is put together by.
    template: &'t str,
    /// What follows the message.
    values: Vec<&'t [Token<'t>]>,
}

impl<'t> Invocation<'t> {
    /// The one that begins at `at`, if one does.
    fn at(tokens: &'t [Token<'t>], at: usize, path: &Path) -> Option<Result<Self, String>> {
        let [Word(name), Sign('!'), Sign('(' | '[' | '{'), ..] = &tokens[at..] else {
            return None;
        };
        match *name {
            "info" | "warn" | "error" => Some(Self::read(tokens, at, name, path)),
            // Its level may be any.
            "event" => Some(Err("event! is used".to_owned())),
            _ => None,
        }
    }

    fn read(tokens: &'t [Token<'t>], at: usize, level: &str, path: &Path) -> Result<Self, String> {
        let end = end_of_group(tokens, at + 2).ok_or("it does not end")?;
        let all = arguments(&tokens[at + 3..end]);
        // Without a target it is that of the module.
        let module = path
            .components()
            .next()
            .map(|first| Path::new(first.as_os_str()).with_extension(""));
        let mut area = area(module.as_deref().and_then(Path::to_str).unwrap_or_default());
        let mut event = Event::default();
        event.levels.insert(level.to_owned());
        for (n, argument) in all.iter().enumerate() {
            match argument {
                [Word("target"), Sign(':'), Text(target)] => area = self::area(target),
                [Word("target"), Sign(':'), ..] => {
                    return Err("its target is no literal".to_owned());
                }
                [Word("name" | "parent"), Sign(':'), ..] => {}
                [Text(template)] | [Word("message"), Sign('='), Text(template)] => {
                    let values = all[n + 1..].to_vec();
                    return Ok(Self {
                        area,
                        event,
                        template,
                        values,
                    });
                }
                field => {
                    event.fields.insert(field_name(field));
                }
            }
        }
        Err(format!("no message: {:?}", &tokens[at..=end]))
    }

    /// What the message may be, with its area and the rest.
    fn messages(
        self,
        tokens: &[Token<'_>],
        at: usize,
        sources: &[(&PathBuf, Vec<Token<'_>>)],
    ) -> Result<(Vec<String>, String, Event), String> {
        let Self {
            area,
            event,
            template,
            values,
        } = self;
        let (shown, only) = put_together(template);
        let Some(only) = only else {
            return Ok((vec![shown], area, event));
        };
        let messages: Vec<String> = match values[..] {
            // Of a parameter, callers say what it is.
            [] => {
                let function = tokens[..at].windows(2).rev().find_map(|two| match two {
                    [Word("fn"), Word(name)] => Some(*name),
                    _ => None,
                });
                sources
                    .iter()
                    .flat_map(|(_, tokens)| handed_to(tokens, function))
                    .collect()
            }
            [[.., Sign('.'), Word(method), Sign('('), Sign(')')]] => results_of(tokens, method),
            [value] => chosen(value),
            _ => Vec::new(),
        };
        match messages.is_empty() {
            true => Err(format!(
                "what is {{{only}}} in {template:?}? Choose it in the macro, by a match"
            )),
            false => Ok((messages, area, event)),
        }
    }
}

/// The part of the product that a target is of: as `log.rs` has it.
fn area(target: &str) -> String {
    let target = ["sessionkeep::", "sessionkeep_"]
        .iter()
        .find_map(|ours| target.strip_prefix(ours))
        .unwrap_or(target);
    let first = target.split("::").next().unwrap_or(target);
    let area = match first {
        "watcher" | "core" | "session" | "archive" => "sync",
        "stores" => "store",
        "gateway" => "gate",
        "control" => "init",
        "config" | "sessionkeep" | "lib" | "main" => "cli",
        other => other,
    };
    area.to_owned()
}

/// `seq` of `seq`, `%seq`, `?seq` and `seq = %marker.seq`.
fn field_name(field: &[Token<'_>]) -> String {
    let name = field.iter().take_while(|token| **token != Sign('='));
    let words = name.filter_map(|token| match token {
        Word(word) => Some((*word).to_owned()),
        Text(text) => Some(text.clone()),
        Sign('.') => Some(".".to_owned()),
        Sign(_) => None,
    });
    words.collect()
}

/// A message with `…` in place of what is put in. Where that is all of it, its name as well.
fn put_together(template: &str) -> (String, Option<&str>) {
    let (mut shown, mut only, mut rest) = (String::new(), None, template);
    while let Some(at) = rest.find(['{', '}']) {
        shown.push_str(&rest[..at]);
        let brace = &rest[at..];
        if brace.starts_with("{{") || brace.starts_with("}}") {
            shown.push_str(&brace[..1]);
            rest = &brace[2..];
            continue;
        }
        let end = brace.find('}').map_or(brace.len(), |end| end + 1);
        if end == template.len() {
            only = Some(
                brace
                    .trim_matches(['{', '}'])
                    .split(':')
                    .next()
                    .unwrap_or_default(),
            );
        }
        shown.push('…');
        rest = &brace[end..];
    }
    shown.push_str(rest);
    (shown, only)
}

/// The literals that a `match` or an `if` comes to: not its patterns.
fn chosen(value: &[Token<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, token) in value.iter().enumerate() {
        let (before, after) = (&value[..at], &value[at + 1..]);
        let is_result = matches!(before, [.., Sign('='), Sign('>')] | [.., Sign('{')]);
        let is_pattern = matches!(
            after,
            [Sign('='), Sign('>'), ..] | [Sign('|'), ..] | [Word("if"), ..]
        );
        if let Text(text) = token
            && is_result
            && !is_pattern
        {
            found.push(text.clone());
        }
    }
    found
}

/// What a function of the same file may give, which chooses it.
fn results_of(tokens: &[Token<'_>], function: &str) -> Vec<String> {
    let begins = |two: &[Token<'_>]| two == [Word("fn"), Word(function)];
    let Some(at) = tokens.windows(2).position(begins) else {
        return Vec::new();
    };
    let body = tokens[at..]
        .iter()
        .position(|token| *token == Sign('{'))
        .map(|open| at + open);
    let body = body.and_then(|open| Some(&tokens[open..end_of_group(tokens, open)?]));
    body.map(chosen).unwrap_or_default()
}

/// The literals that a method is called with, as its first argument.
fn handed_to(tokens: &[Token<'_>], method: Option<&str>) -> Vec<String> {
    let calls = tokens.windows(5).filter_map(|five| match five {
        [
            Sign('.'),
            Word(name),
            Sign('('),
            Text(text),
            Sign(',' | ')'),
        ] if Some(*name) == method => Some(text.clone()),
        _ => None,
    });
    calls.collect()
}

/// The log's own line, which no macro writes: `Line::new(…, Level::WARN, "log")`, and what it is given.
fn written_by_hand(tokens: &[Token<'_>], at: usize) -> Option<(String, String, Event)> {
    let [
        Word("Line"),
        Sign(':'),
        Sign(':'),
        Word("new"),
        Sign('('),
        ..,
    ] = &tokens[at..]
    else {
        return None;
    };
    let end = end_of_group(tokens, at + 4)?;
    let [
        ..,
        Word("Level"),
        Sign(':'),
        Sign(':'),
        Word(level),
        Sign(','),
        Text(area),
    ] = &tokens[..end]
    else {
        return None;
    };
    let mut event = Event::default();
    event.levels.insert(level.to_lowercase());
    // Until the block ends in which it is made.
    let after = &tokens[end + 1..];
    let until = after.iter().position(|token| *token == Sign('}'))?;
    let block = &after[..until];
    event.fields.extend(handed_to(block, Some("field")));
    let message = handed_to(block, Some("message")).pop()?;
    Some((message, self::area(area), event))
}

// ---- The scanner itself. ----

#[test]
fn the_scanner_finds_the_messages_of_a_sample() {
    let sample = r##"
        //! warn!(target: "boot", "in a comment")
        /* info!("in /* another */ comment") */
        fn one<'a>(quote: &'a str) -> char {
            info!(target: "boot", seq, %path, why = %error.words("a, b"), ?plan, "restored");
            tracing::warn!(
                target: "gateway", text = "info!(no)", // a word
                "a \"quoted\" \u{2713} \
                 line {{here}}"
            );
            error!(r#"raw "one""#);
            let _ = ("error!(\"in a string\")", r#"error!("in another")"#, b'"', '"', '\'', '\u{22}');
            debug!(target: "boot", "not shown"); my_info!("not ours");
            warn!(target: "sessionkeep_stores::mongo", count, "took {} of {count:?} ms", took);
            info!(target: "init", message = "given by name");
            warn!(target: "sync", "{}", match what {
                "first" => "one thing",
                "second" | "third" if what.is_empty() => { "another" }
                _ => "all else",
            });
            info!(target: "http", "{}", if on { "on" } else { "off" });
            info!(target: "incident", "{}", kind.title());
            '\\'
        }
        fn title(self) -> &'static str { match self { Self::A => "A title", Self::B => "B's title" } }
        fn show(&self, what: &'static str) { info!(target: "boot", of, "{what}"); }
        #[cfg(test)]
        #[allow(dead_code)]
        pub(crate) fn helper<A, B>(of: [u8; 3]) { info!("in a helper"); }
        #[cfg(test)]
        mod tests { fn f() { if true { warn!("in a test"); } } }
        #[cfg(test)]
        use a::{b, c};
        #[cfg(test)]
        mod model;
        #[cfg(test)]
        #[path = "cases/all.rs"]
        mod cases;
        fn last() { error!(target: "cli", "after the tests"); }
    "##;
    let files = [
        ("session/frozen.rs", sample),
        (
            "session/frozen/model.rs",
            "fn f() { info!(\"a test's own\"); }",
        ),
        (
            "session/cases/all.rs",
            "fn f() { info!(\"a test's own\"); }",
        ),
        (
            "cli/verify.rs",
            "fn f() { progress.show(\"verifying\", work); self.show(&all); }",
        ),
        (
            "log.rs",
            "fn f() { if n > 0 { let mut l = Line::new(format, now(), Level::WARN, \"log\"); \
             l.message(\"dropped\"); l.field(\"count\", &n); } }",
        ),
        (
            "boot/bad.rs",
            "fn f() { warn!(target: \"boot\", seq, WORDS); info!(target: TARGET, \"a\"); \
             error!(\"{words}\"); event!(Level::WARN, \"b\"); }",
        ),
    ];
    let files = files.map(|(path, text)| (PathBuf::from(path), text.to_owned()));
    let Scan { messages, unread } = scan(&files);
    let found: BTreeSet<String> = messages.iter().map(shown).collect();
    let wanted = [
        "[BOOT] restored (info; path, plan, seq, why)",
        "[GATE] a \"quoted\" \u{2713} line {here} (warn; text)",
        "[SYNC] raw \"one\" (error; )",
        "[STORE] took … of … ms (warn; count)",
        "[INIT] given by name (info; )",
        "[SYNC] one thing (warn; )",
        "[SYNC] another (warn; )",
        "[SYNC] all else (warn; )",
        "[HTTP] on (info; )",
        "[HTTP] off (info; )",
        "[INCIDENT] A title (info; )",
        "[INCIDENT] B's title (info; )",
        "[BOOT] verifying (info; of)",
        "[LOG] dropped (warn; count)",
        "[CLI] after the tests (error; )",
    ];
    assert_eq!(found, wanted.map(str::to_owned).into());
    assert_eq!(unread.len(), 4, "{unread:#?}");
    let page = "## [BOOT]\n| message | level |\n|---|---|\n\
                | `` run `verify` `` | info, warn | `seq`, `why` | It is so. | Nothing. |\n\
                | `the end` | error | | It is over. | Nothing. |\n";
    let listed: Vec<String> = documented(page).iter().map(shown).collect();
    let wanted = [
        "[BOOT] run `verify` (info, warn; seq, why)",
        "[BOOT] the end (error; )",
    ];
    assert_eq!(listed, wanted);
}
