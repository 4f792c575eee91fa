//! Takes `.sessionkeep` away from its owner, again and again, and puts something else in its place: a
//! link to a directory of somebody else's, or a directory of its own with a forged journal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use super::Score;

/// What an installation that was interrupted would leave, so that the next start goes on with it.
fn forge(own: &Path, target: &Path) -> std::io::Result<()> {
    fs::create_dir(own)?;
    // Through the link it would be a program of root's that everybody runs as root.
    let journal = r#"{"version":1,"phase":"placing","label":null,"replaced_entries":0,
        "late_modes":[["evil",2541]],
        "marker":{"version":1,"archive":"default","instance":"forged-1","epoch":1,"seq":1,
        "root":"0000000000000000000000000000000000000000000000000000000000000000","mode":"store",
        "history":"00000000000000000000000000000000","updated_ms":0}}"#;
    fs::write(own.join("install.json"), journal)?;
    // What lies there would be moved into the session directory.
    symlink(target, own.join("staging"))
}

/// Forges it once. Arguments as for [`run`].
pub(super) fn forge_once(arguments: &[String]) -> anyhow::Result<Score> {
    let [session, target] = arguments else {
        anyhow::bail!("forge takes the session directory and a target");
    };
    let (session, target) = (Path::new(session), Path::new(target));
    symlink(target.join("program"), session.join("evil"))?;
    forge(&session.join(".sessionkeep"), target)?;
    Ok(Score {
        tried: 1,
        achieved: 1,
    })
}

/// Arguments: the session directory, and a directory that the attacker may not look into.
pub(super) fn run(arguments: &[String], until: Instant) -> anyhow::Result<Score> {
    let [session, target] = arguments else {
        anyhow::bail!("replace takes the session directory and a target");
    };
    let (session, target) = (Path::new(session), Path::new(target));
    let own = session.join(".sessionkeep");
    let _ = fs::remove_file(session.join("evil"));
    symlink(target.join("program"), session.join("evil"))?;
    let mut score = Score::default();
    while Instant::now() < until {
        score.tried += 1;
        let aside = session.join(format!("aside-{}", score.tried));
        let _ = fs::rename(&own, &aside);
        let placed = if score.tried.is_multiple_of(2) {
            symlink(target, &own)
        } else {
            forge(&own, target)
        };
        score.achieved += u64::from(placed.is_ok());
        // Something to commit, and something to delete: both look at what is in its place.
        fs::write(session.join("changes.json"), score.tried.to_string())?;
        let _ = fs::remove_file(session.join("changes.json"));
        // Its own are removed, so that the next round finds room for them.
        if !fs::symlink_metadata(&aside)?.is_dir() {
            let _ = fs::remove_file(&aside);
        } else if fs::remove_file(aside.join("install.json")).is_ok() {
            let _ = fs::remove_file(aside.join("staging"));
            let _ = fs::remove_dir(&aside);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(score)
}
