//! Keeps what this process knows from others of the same user.
//!
//! Every process of ours knows the store's address with its password, from its environment or in
//! memory. The gateway may run under the same user, and would read it in `/proc/PID`; and a core
//! dump would leave it on a disk.

use nix::sys::prctl;

/// From here on nobody can look into this process but who may look into all (root with
/// `CAP_SYS_PTRACE`, or of late `CAP_PERFMON`: containers have neither unless they are given), and it
/// leaves no core dump. To be called before anything else: until then it is as open as any.
///
/// A fork of this process is as closed from its first moment: that is how helpers are made. What it
/// executes is open again, as the kernel has it: a gateway can be debugged and
/// dumped, under the limits that the container was given.
pub fn forbid_dumps() {
    // It fails where a sandbox forbids the call, which is no reason not to start.
    let _ = prctl::set_dumpable(false);
}
