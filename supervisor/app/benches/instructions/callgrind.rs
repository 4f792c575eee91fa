//! Running a path under callgrind, and telling it what to count.

use std::arch::asm;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The flag by which this program, under valgrind, is told which path to run.
pub(crate) const RUN_ONE: &str = "--run-one";

/// `VG_USERREQ__RUNNING_ON_VALGRIND` of `valgrind.h`.
const RUNNING_ON_VALGRIND: u64 = 0x1001;
/// `VG_USERREQ__START_INSTRUMENTATION` of `callgrind.h`.
const START_INSTRUMENTATION: u64 = 0x4354_0004;
/// `VG_USERREQ__STOP_INSTRUMENTATION` of `callgrind.h`.
const STOP_INSTRUMENTATION: u64 = 0x4354_0005;

/// Does `work`, and has callgrind count all instructions, of all threads, meanwhile. To be used
/// once in a process.
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> T {
    assert_ne!(
        request(RUNNING_ON_VALGRIND),
        0,
        "paths are run under valgrind"
    );
    request(START_INSTRUMENTATION);
    let done = black_box(work());
    request(STOP_INSTRUMENTATION);
    done
}

/// Asks valgrind for something; 0 where it does not run.
///
/// As the macros of `valgrind.h` do it for this architecture. A toggle at a function's entry, the
/// way that needs no request, would count in the thread that enters it alone.
#[cfg(target_arch = "x86_64")]
fn request(code: u64) -> u64 {
    let arguments = [code, 0, 0, 0, 0, 0];
    let mut answer = 0;
    // SAFETY: to a processor this is nothing: `rdi` is rotated by 128 bits in all, `rbx` exchanged
    // with itself. Valgrind knows the sequence, reads `arguments`, and sets `rdx`.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") answer,
            options(nostack),
        );
    }
    answer
}

/// What counts depend on besides the code, in words; for the table.
#[cfg(target_arch = "x86_64")]
pub(crate) fn setting() -> Result<String, String> {
    let output = Command::new("valgrind").arg("--version").output();
    let valgrind = match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => {
            return Err(
                "valgrind is needed and does not run; on Debian: apt-get install valgrind".into(),
            );
        }
    };
    // SAFETY: it gives a static string.
    let libc = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    // Valgrind's processor has AVX2 where the real one has, and never anything newer. blake3, zstd
    // and the C library choose by it.
    let vectors = if std::is_x86_feature_detected!("avx2") {
        "with AVX2"
    } else {
        "without AVX2"
    };
    Ok(format!(
        "{valgrind}, glibc-{}, x86_64 {vectors}",
        libc.to_string_lossy()
    ))
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: u64) -> u64 {
    0
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn setting() -> Result<String, String> {
    Err("the counts are of x86_64, and this is another architecture".into())
}

/// Runs the path under callgrind and gives how many instructions it took.
pub(crate) fn count(name: &str) -> Result<u64, String> {
    let out = profile_of(name);
    let failed = |why: &dyn std::fmt::Display| format!("failed to count `{name}`: {why}");
    fs::create_dir_all(out.parent().expect("it is in a directory")).map_err(|e| failed(&e))?;
    if out.exists() {
        fs::remove_file(&out).map_err(|e| failed(&e))?;
    }
    let program = std::env::current_exe().map_err(|e| failed(&e))?;
    let ran = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--instr-atstart=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([RUN_ONE, name])
        // Nobody's environment changes what the path does.
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TMPDIR"))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(&e))?;
    if !ran.status.success() {
        let words = String::from_utf8_lossy(&ran.stderr);
        return Err(failed(&format_args!("{}\n{}", ran.status, words.trim())));
    }
    let profile = fs::read_to_string(&out).map_err(|e| failed(&e))?;
    match total(&profile) {
        Some(count) if count > 0 => Ok(count),
        _ => Err(failed(&"callgrind counted nothing")),
    }
}

/// The profile that callgrind writes of a path: what `callgrind_annotate` reads.
pub(crate) fn profile_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("instructions")
        .join(format!("{name}.callgrind"))
}

/// The line `totals: N` of a profile that counts instructions only.
fn total(profile: &str) -> Option<u64> {
    let mut lines = profile.lines();
    lines.find(|line| *line == "events: Ir")?;
    lines.find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}
