//! Root without the right to signal processes of other users, as under `cap_drop: ALL`.

use crate::life::{Setup, both};

/// A gateway that gives up root. It is up when it has, and waits for its end as the inner script says.
fn as_another_user(inner: &str) -> String {
    format!(
        "exec setpriv --reuid=4321 --regid=4321 --clear-groups \
         sh -c \"{inner}; echo up > ready; while :; do sleep 0.05; done\""
    )
}

#[test]
fn a_gateway_that_gave_up_root_is_stopped_without_the_right_to_signal_it() {
    // SAFETY: it takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        crate::policy::cannot_run("there are no rights to take away: it is not root");
        return;
    }
    let own = "chmod 711 \"$SESSION/..\"; chown 4321 \"$SESSION\"";
    let rights = "--bounding-set=-all,+setuid,+setgid,+chown,+dac_override";
    for run_as in both() {
        for (inner, code) in [
            ("trap 'exit 6' TERM", 6),
            // Only KILL ends it, and what it leaves behind.
            ("trap '' TERM; (sleep 300 &)", 137),
        ] {
            let mut life = Setup::file_mode(*run_as)
                .before(&format!("{own}; set -- setpriv {rights} \"$@\""))
                .script(&as_another_user(inner));
            life.until_up();
            assert!(life.log().contains("cap_add: [KILL]"), "{}", life.log());
            life.signal(libc::SIGTERM);
            assert_eq!(life.code(), code, "{}", life.log());
            assert!(life.log().contains("all is saved"), "{}", life.log());
        }
    }
}
