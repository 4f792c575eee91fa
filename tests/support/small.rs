//! A small file system.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Something that is mounted, and unmounted whatever happens.
pub(crate) struct Small(PathBuf);

impl Small {
    /// A file system in memory, with a size or a number of files among its `options`. `None` where
    /// this user may not mount, which is said.
    pub(crate) fn mount(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("mkdir");
        let done = mount(at, &["-t", "tmpfs", "-o", options, "tmpfs"]);
        if !done {
            crate::policy::cannot_run("nothing can be mounted");
        }
        done.then(|| Self(at.to_owned()))
    }

    /// A directory over itself, so that whoever goes there from now on can only read.
    pub(crate) fn read_only(at: &Path) -> Option<Self> {
        if !mount(at, &["--bind", at.to_str().expect("text")]) {
            crate::policy::cannot_run("nothing can be mounted");
            return None;
        }
        let bound = Self(at.to_owned());
        assert!(mount(at, &["-o", "remount,bind,ro"]), "not read-only");
        Some(bound)
    }

    /// A root file system as a container has it, at `at`: `image` is below it, and what is written goes to a
    /// new directory beside it.
    pub(crate) fn container(image: &Path, at: &Path) -> Option<Self> {
        let beside = |name: &str| at.with_extension(name);
        for dir in [at, &beside("upper"), &beside("work")] {
            let _ = fs::remove_dir_all(dir);
            fs::create_dir_all(dir).expect("mkdir");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off",
            image.display(),
            beside("upper").display(),
            beside("work").display()
        );
        let done = mount(at, &["-t", "overlay", "-o", &options, "overlay"]);
        if !done {
            crate::policy::cannot_run("no overlayfs can be mounted");
        }
        done.then(|| Self(at.to_owned()))
    }

    /// Something that is there, at another place as well.
    pub(crate) fn bind(from: &Path, at: &Path) -> Option<Self> {
        let done = mount(at, &["--bind", from.to_str().expect("text")]);
        if !done {
            crate::policy::cannot_run("nothing can be mounted");
        }
        done.then(|| Self(at.to_owned()))
    }

    /// Other options for what is there.
    #[track_caller]
    pub(crate) fn change(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(mount(&self.0, &["-o", &options]), "{options}");
    }
}

fn mount(at: &Path, words: &[&str]) -> bool {
    let done = Command::new("mount")
        .args(words)
        .arg(at)
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
