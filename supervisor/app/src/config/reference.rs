//! The reference page, `docs/configuration.md`, written by the program it describes.

use std::fmt::Write as _;

use super::registry::{self, Default, Setting};
use sessionkeep_core::exit;

const BEFORE: &str = "\
# Settings and exit codes

<!-- Written by `sessionkeep config --reference`. A test compares the two: change the program, then
     write this file anew. -->

Every setting can be given in four places. The first that has it wins:

1. a flag: `--dir`, `--store`, `--archive`, `--profile`, `--log-level`, `--log-format`, and
   `--set KEY=VALUE` for any setting;
2. an environment variable;
3. the settings file: the one named by `--config` or `SESSIONKEEP_CONFIG`, else `sessionkeep.yaml`
   in the working directory, else `/etc/sessionkeep.yaml`;
4. the default.

`sessionkeep config` shows what is in force, and where each value comes from. Unknown names and
contradictions are errors, all reported at once; nothing starts before they are mended. An empty
variable counts as one that is not set. Time spans are a whole number and a unit: `500ms`, `3s`,
`2m`, `1h`.

The file may be nested or dotted, and `store:` may be just an address:

```yaml
store: mongodb://user:password@db.example/sessionkeep
stop:
  total: 55s
  flush: 10s
log.level: debug
```

";

const AFTER_TABLE: &str = "
Further variables:

- `MONGO_ENABLED` (`true`, `false`, `1`, `0`, `yes`, `no`, `on`, `off`) switches MongoDB on and off.
  `false` beats any MongoDB address and leaves the session in its directory alone, so that one
  variable is enough to go back to plain files, and forth again. Together with an SQLite store it is
  an error. `true` asks for a MongoDB address.
- `PORT` is the gateway's own port; for profile `waha` it is part of the default of `gateway.probe`.
- `SESSIONKEEP_CONFIG` names the settings file.
- Two variables of one setting must not differ, except `LOG_LEVEL` and `LOG_FORMAT`: the gateway
  reads them as well, so `SESSIONKEEP_LOG_LEVEL` and `SESSIONKEEP_LOG_FORMAT` win over them.
- Variables that Kubernetes makes for a service named like `sessionkeep` are passed over.

A secret can be in a file of its own, which a variable names: `MONGO_URL_FILE=/run/secrets/mongo_url`
in place of `MONGO_URL`, and so for each variable of `store.url`, `http.token`, `http.password`,
`gateway.api_key`, `webhook.url`, `webhook.secret` and `heartbeat.url`. Both at once are an error. The
file is read at the start. It has to be readable for the user that `run` is started as, and should not be
for the gateway's, where that is another. What the gateway reads itself, as WAHA does `WAHA_API_KEY`, it
reads from its own variable, and knows nothing of such a file.

Blanks and line breaks around a value are no part of it. Quotes are: `docker run --env-file` and the
forms of many hosts pass them on as they are, so a value that begins and ends with the same quote is
refused, and where it is a secret, to which quotes may belong, warned of. A secret loses the line break
at its end, as from a file of Kubernetes, and is refused with a blank at either end or with a control
character in it. A path is taken as it is: `~`, `$NAME`, a comment behind it, and a path of Windows are
refused. A relative one is below the working directory, and the log says which directory that is.

User names, passwords, options of addresses, and tokens are never shown or logged. In a MongoDB
address, percent-encode what is special in a password: `@` as `%40`, `/` as `%2F`, `:` as `%3A`.
An option that is not known is refused by its name; those that other drivers know and that mean
nothing here (`compressors`, `timeoutMS`, `useUnifiedTopology` and the like) are left out, with a word
in the log. The database's name is letters, digits, `-` and `_`.

With `tls=true` in a MongoDB address, and always with `mongodb+srv://`, the server must show a
certificate for its host, signed by a CA that browsers know or by the one whose file
`tlsCAFile=/PATH/ca.pem` names. Nothing is sent before. `tlsInsecure=true` and
`tlsAllowInvalidCertificates=true`, which switch that off, are refused.

## How `run` behaves as an init

Flags of `sessionkeep run`, before the `--`. They have no variable and no place in the settings file:
they belong to the command line of an image, as those of tini and dumb-init do.

| flag | meaning |
|---|---|
| `--map-exit CODE=CODE` | exchange an exit code of the gateway for another; may be repeated, a later one of the same code holds |
| `--rewrite SIGNAL=SIGNAL` | pass another signal on than the one that was sent; names (`TERM`, `SIGHUP`, `RTMIN+3`) or numbers; `=0` drops it; may be repeated |
| `--signal-group` | send signals to the gateway's whole process group, and not to its main process alone |
| `--warn-on-reap` | log a warning for each orphan that is reaped, with its process id, its name and how it ended |
| `--pdeathsig SIGNAL` | where `run` is not PID 1: get this signal when the parent dies, and act on it as on any other |
| `--init-only` | be an init and nothing else, in place of `tini --`: no store, no session directory, no lock, no watcher, no HTTP |

With `--init-only`, of the settings only `stop.total`, `restart.*` and `log.*` are read; the others may
be set and are not looked at. All of `stop.total` is the gateway's. What it leaves behind is still waited
for. The gateway's environment is scrubbed as ever.

Every signal that can be caught is passed on to the gateway, real-time signals included. Not passed on
are CHLD, and 32 and 33, which the C library keeps for itself. SEGV, BUS, FPE, ILL, TRAP, SYS and ABRT
are signals like others where somebody sends them; what the kernel raises for a fault of sessionkeep's
own ends it.

TERM, INT, QUIT and RTMIN+3 (37) stop: the gateway gets the very signal, everything it leaves behind
gets TERM, and the budget of `stop.total` begins. They do so with `--rewrite` too, whichever of the two
signals it is, so that `--rewrite TERM=HUP` stops a gateway that wants HUP for it; only `=0` ends that.

TSTP, TTIN and TTOU suspend: the gateway's process group gets STOP, and `run` stops itself unless it is
PID 1. CONT lets both go on, and a stop signal does the same to the gateway. A stop under way is not
suspended.

At a terminal (`docker run -it`, or a shell's job) the gateway is the foreground job: the terminal's
keys and the window's size reach it directly. What the suspend key stops goes on at once where no shell
with job control is there to let it go on, as in a container.

The gateway starts with the signal mask and the ignored signals that `run` was started with.

## Exit codes

`sessionkeep run` exits with the gateway's own code, or 128 and the signal's number where the
gateway died of one. Codes of its own:

| code | meaning | next step |
|---|---|---|
";

const AFTER_CODES: &str = "
`--map-exit CODE=CODE` exchanges codes that are the gateway's own, last of all: what `restart.policy`
goes by is the code before. To these counts 128 and the signal's number after a stop before the
gateway was started. Codes of the table keep their meaning: where the last changes are not saved, a
gateway that ended with 0, or whose code is mapped to 0, shows as 74.
The other commands exit with 0 where all is well, with 1 where a check (`health`, `verify`, `doctor`)
found something, with 2 where the command line could not be understood, and else with a code from
the table.
";

/// The page, in Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(BEFORE);
    page.push_str("| setting | takes | default | meaning |\n|---|---|---|---|\n");
    for setting in registry::ALL {
        let default = match setting.default {
            Default::Is(text) => format!("`{text}`"),
            Default::Depends(words) => words.to_owned(),
        };
        let Setting {
            key,
            takes,
            meaning,
            ..
        } = setting;
        let _ = writeln!(page, "| `{key}` | {takes} | {default} | {meaning} |");
    }
    page.push_str("\n| setting | environment | flag |\n|---|---|---|\n");
    for setting in registry::ALL {
        let names: Vec<String> = registry::env_names(setting)
            .map(|name| format!("`{name}`"))
            .collect();
        let flag = setting
            .flag
            .map_or_else(String::new, |flag| format!("`{flag}`"));
        let _ = writeln!(
            page,
            "| `{}` | {} | {flag} |",
            setting.key,
            names.join(", ")
        );
    }
    page.push_str(AFTER_TABLE);
    for (code, meaning, step) in exit::ALL {
        let _ = writeln!(page, "| {code} | {meaning} | {step} |");
    }
    page.push_str(AFTER_CODES);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_what_the_program_writes() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let kept = std::fs::read_to_string(kept).unwrap_or_default();
        assert!(
            kept == page(),
            "docs/configuration.md differs; write it anew: \
             cargo run -- config --reference > docs/configuration.md"
        );
    }
}
