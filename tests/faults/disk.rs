//! A disk that is full, broken or read-only, and a process without descriptors: the gateway goes
//! on, nothing bad is committed, and all that can be committed is.

use super::inject::Inject;
use super::keeper::{IDLE, World};

#[test]
fn a_disk_that_writes_nothing_out_is_found_before_the_gateway_starts() {
    let world = World::sqlite();
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    let probe = world.dir().join(".sessionkeep/preflight");
    let fault = fault.fault("fsync", "error=EIO").path(probe);
    let ended = world
        .script("touch \"$P/ran\"")
        .before(&fault.before())
        .run_to_end();
    assert_eq!(fault.count(), 1, "{}", ended.log);
    assert_eq!(ended.code, 78, "{}", ended.log);
    for told in [
        "failed to write in the session directory",
        "Input/output error",
        world.dir().to_str().expect("text"),
    ] {
        assert!(ended.log.contains(told), "{told}: {}", ended.log);
    }
    assert!(!world.path("ran").exists(), "the gateway was started");
    // And once the disk does what it should, nothing is left of it.
    let life = world.script(IDLE).ready();
    assert_eq!(life.stop().code, 0);
}
