//! What form the committed version of a file has, where this watcher has not seen it itself: the file
//! was changed before it began, and is no JSON now, or no database.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::{Committed, Replicator};
use crate::boot::BootError;
use crate::boot::contents::Contents;
use sessionkeep_archive::fetch::Fetch;
use sessionkeep_archive::version::Version;
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::{Form, Login, json};

/// How long after it could not be asked it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A file, what form its last committed version has, and the login that it keeps.
type Known = (RelPath, Form, Option<Login>);

impl Replicator {
    /// Reads the last committed versions of the files that `committed` does not know them of, once for
    /// each, and has these looked at again.
    pub(super) async fn ask_for_forms(&mut self, committed: &mut Committed) {
        let paths = std::mem::take(&mut committed.unasked);
        if paths.is_empty() {
            return;
        }
        let asked = self.forms_of(&paths).await;
        let mut when = Instant::now();
        match asked {
            Ok(forms) => {
                let index = self.index.as_mut().expect("no thread has it");
                for (path, form, login) in forms {
                    debug!(target: "sync", %path, ?form, "the last committed version of a file was looked at");
                    index.note_form(&path, form, login);
                }
            }
            Err(error) => {
                warn!(target: "sync", error = %sessionkeep_core::human::Causes(&error), "the last committed versions of files that are not whole could not be read; trying again");
                when += ASK_AGAIN;
            }
        }
        committed
            .later
            .extend(paths.into_iter().map(|path| (path, when)));
    }

    async fn forms_of(&self, paths: &[RelPath]) -> Result<Vec<Known>, BootError> {
        let Some(head) = self.head().filter(|head| head.base > 0).cloned() else {
            return Ok(Vec::new());
        };
        let directory = |source| BootError::Directory {
            dir: self.settings.dir.clone(),
            source,
        };
        let wanted: HashSet<&RelPath> = paths.iter().collect();
        let mut version = Version::load(&*self.store, head).await?;
        let fetch = Fetch::plan(&mut version, |path| wanted.contains(path));
        drop(version);
        let contents = Contents::begin(&self.state).map_err(directory)?;
        let forms = match fetch.run(&*self.store, contents).await {
            Ok(contents) => contents.forms().map_err(directory).map(|forms| {
                let known = |(path, form)| {
                    let login = contents.login(&path);
                    (path, form, login)
                };
                forms.into_iter().map(known).collect()
            }),
            // Whatever it was, it is the last good version until the archive is found to have lost it.
            Err((error, _)) if error.is_damage() => Ok(paths
                .iter()
                .map(|path| match json::is_json_name(path) {
                    true => (path.clone(), Form::Whole, None),
                    false => (path.clone(), Form::Database, None),
                })
                .collect()),
            Err((error, _)) => Err(error.into()),
        };
        Contents::clear(&self.state).map_err(directory)?;
        forms
    }
}
