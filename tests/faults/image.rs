//! A session directory that lies in a container's own file system, and in part in an image: overlayfs does not
//! rename a directory of an image's layer.

use std::fs;
use std::path::PathBuf;

use super::inject::Inject;
use super::keeper::{IDLE, Setup, Tree, World, wait_until};
use super::small::Small;

const CALLS: &str = "?rename,?renameat,?renameat2,mkdirat,unlinkat";

/// A world whose image has `auth/default`, as with `RUN mkdir -p auth/default` or `COPY`.
struct Image(World);

impl Image {
    fn new() -> Self {
        let world = World::sqlite();
        for dir in ["image/auth/default", "image/auth/empty/er"] {
            fs::create_dir_all(world.path(dir)).expect("mkdir");
        }
        for file in ["image/auth/default/of-the-image", "image/auth/notes"] {
            fs::write(world.path(file), "of the image").expect("write");
        }
        Self(world)
    }

    fn dir(&self) -> PathBuf {
        self.0.path("root/auth")
    }

    /// A new container, with nothing of the last one.
    fn container(&self) -> Option<Small> {
        Small::container(&self.0.path("image"), &self.0.path("root"))
    }

    fn script(&self, script: &str) -> Setup<'_> {
        self.0.script(script).dir(self.dir())
    }

    /// Stores a login from a first container.
    fn stored(&self) -> Option<Tree> {
        let _container = self.container()?;
        let life = self.script(IDLE).ready();
        for (name, content) in [
            ("default/creds.json", r#"{"me":"stored"}"#),
            ("default/keys/1.json", "[1]"),
            ("notes", "written over"),
        ] {
            let path = self.dir().join(name);
            fs::create_dir_all(path.parent().expect("a name in a directory")).expect("mkdir");
            fs::write(path, content).expect("write");
        }
        let here = Tree::of(&self.dir());
        wait_until("everything is stored", || {
            self.0.stored().as_ref() == Some(&here)
        });
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        Some(here)
    }
}

#[test]
fn every_container_of_an_image_that_has_the_directory_gets_the_login() {
    let image = Image::new();
    let Some(stored) = image.stored() else { return };
    for _ in 0..2 {
        let container = image.container().expect("it could be mounted before");
        let life = image.script(IDLE).ready();
        assert_eq!(Tree::of(&image.dir()), stored, "{}", life.log());
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        let replaced = image.dir().join(".sessionkeep/replaced");
        let aside = fs::read_dir(replaced).expect("read").next().expect("one");
        let kept = aside.expect("entry").path().join("default/of-the-image");
        assert_eq!(fs::read_to_string(kept).expect("kept"), "of the image");
        // The same container once more.
        let again = image.script(IDLE).ready();
        assert_eq!(again.stop().code, 0);
        assert_eq!(Tree::of(&image.dir()), stored);
        drop(container);
    }
}

#[test]
fn a_kill_at_any_call_of_a_restore_into_an_image_ends_in_the_login_whole() {
    let image = Image::new();
    let Some(stored) = image.stored() else { return };
    let (mut kills, mut nth) = (0, 1);
    loop {
        let _container = image.container().expect("it could be mounted before");
        let Some(fault) = Inject::new(&image.0) else {
            return;
        };
        let fault = fault.fault(CALLS, &format!("signal=SIGKILL:when={nth}"));
        let ended = image.script("exit 0").before(&fault.before()).run_to_end();
        // It came through, so that it has made fewer calls than that.
        if ended.code == 0 {
            break;
        }
        kills += 1;
        let life = image.script(IDLE).ready();
        let case = format!("killed at call {nth}: {}\n{}", ended.log, life.log());
        assert_eq!(Tree::of(&image.dir()), stored, "{case}");
        assert_eq!(life.stop().code, 0, "{case}");
        nth += 1;
    }
    assert!(kills > 8, "only {kills} kills");
}
