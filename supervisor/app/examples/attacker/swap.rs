//! Exchanges directories with links to a directory of somebody else's while they are read: what is
//! opened by its path leads out of the session directory in some of the cases.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::Score;

/// So many directories are exchanged, so that a scan meets some of them in the middle.
const PLACES: u32 = 200;

/// Arguments: the session directory, and the directory that the links lead to. Each of ours has
/// files of the same names as that one.
pub(super) fn run(arguments: &[String], until: Instant) -> anyhow::Result<Score> {
    let [session, target] = arguments else {
        anyhow::bail!("swap takes the session directory and a target");
    };
    let session = Path::new(session);
    let mut pairs = Vec::new();
    for number in 0..PLACES {
        let (place, link) = (
            session.join(format!("b{number}")),
            session.join(format!("l{number}")),
        );
        fs::create_dir_all(&place)?;
        fs::write(place.join("secret"), "mine, and always the same")?;
        // A file that changes makes the watcher look.
        fs::write(place.join("changes"), "0")?;
        symlink(target, &link)?;
        let name = |path: &Path| CString::new(path.to_str().context("a name")?).context("a name");
        pairs.push((name(&place)?, name(&link)?, place));
    }
    let mut score = Score::default();
    while Instant::now() < until {
        for (place, link, path) in &pairs {
            // SAFETY: both are C strings that live through the call.
            let exchanged = unsafe {
                libc::renameat2(
                    libc::AT_FDCWD,
                    place.as_ptr(),
                    libc::AT_FDCWD,
                    link.as_ptr(),
                    libc::RENAME_EXCHANGE,
                )
            };
            score.tried += 1;
            score.achieved += u64::from(exchanged == 0);
            if score.tried.is_multiple_of(97) {
                // Where the link stands it is refused.
                let _ = fs::write(path.join("changes"), score.tried.to_string());
            }
        }
    }
    Ok(score)
}
