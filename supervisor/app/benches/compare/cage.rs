//! Control groups: what all processes of a subject used together, and limits on it. Version 1 or
//! 2 of them, whichever this machine lets us make a group in.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the processes in a group may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Part of one core.
    pub(crate) cpu: f64,
    /// Bytes of memory.
    pub(crate) memory: u64,
}

/// A group of processes. Dropping it removes the group, which must be empty by then.
#[derive(Debug)]
pub(crate) struct Cage {
    /// One directory in version 2; one for each controller in version 1.
    groups: Vec<PathBuf>,
    usage: PathBuf,
    version: u8,
}

/// A mounted hierarchy.
struct Hierarchy {
    at: PathBuf,
    version: u8,
    options: String,
}

fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let parse = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let version = match *words.get(2)? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        Some(Hierarchy {
            at: PathBuf::from(words[1]),
            version,
            options: (*words.get(3)?).to_owned(),
        })
    };
    mounts.lines().filter_map(parse).collect()
}

impl Cage {
    /// A group that counts, without limits. `None` where this machine lets us make none: then
    /// what a subject used is added up from its processes.
    pub(crate) fn open() -> Option<Self> {
        Self::with(None)
    }

    /// A group with limits. `None` where this machine lets us make none.
    pub(crate) fn limited(limits: Limits) -> Option<Self> {
        Self::with(Some(limits))
    }

    fn with(limits: Option<Limits>) -> Option<Self> {
        Self::version_1(limits).or_else(|| Self::version_2(limits))
    }

    fn version_1(limits: Option<Limits>) -> Option<Self> {
        let all = hierarchies();
        let mut made = Self {
            groups: Vec::new(),
            usage: PathBuf::new(),
            version: 1,
        };
        let wanted: &[&str] = if limits.is_some() {
            &["cpuacct", "cpu", "memory"]
        } else {
            &["cpuacct"]
        };
        for controller in wanted {
            let hierarchy = all.iter().find(|h| {
                h.version == 1 && h.options.split(',').any(|option| option == *controller)
            })?;
            let group = hierarchy.at.join(name());
            // Two controllers may be mounted as one.
            if !made
                .groups
                .iter()
                .any(|known| known.starts_with(&hierarchy.at))
            {
                fs::create_dir(&group).ok()?;
                made.groups.push(group.clone());
            }
            let group = made.groups.iter().find(|g| g.starts_with(&hierarchy.at))?;
            match (*controller, limits) {
                ("cpuacct", _) => made.usage = group.join("cpuacct.usage"),
                ("cpu", Some(limits)) => {
                    fs::write(group.join("cpu.cfs_period_us"), "100000").ok()?;
                    let quota = (limits.cpu * 100_000.0) as u64;
                    fs::write(group.join("cpu.cfs_quota_us"), quota.to_string()).ok()?;
                }
                ("memory", Some(limits)) => {
                    let bytes = limits.memory.to_string();
                    fs::write(group.join("memory.limit_in_bytes"), bytes).ok()?;
                }
                _ => {}
            }
        }
        Some(made)
    }

    fn version_2(limits: Option<Limits>) -> Option<Self> {
        let all = hierarchies();
        let root = &all.iter().find(|h| h.version == 2)?.at;
        let group = root.join(name());
        if limits.is_some() {
            // Already so where a service manager runs; refused where processes are in the root.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+cpu +memory");
        }
        fs::create_dir(&group).ok()?;
        let made = Self {
            usage: group.join("cpu.stat"),
            groups: vec![group.clone()],
            version: 2,
        };
        if let Some(limits) = limits {
            let quota = (limits.cpu * 100_000.0) as u64;
            fs::write(group.join("cpu.max"), format!("{quota} 100000")).ok()?;
            fs::write(group.join("memory.max"), limits.memory.to_string()).ok()?;
        }
        Some(made)
    }

    /// Has a command run in this group, with all that descends from it.
    pub(crate) fn holds(&self, command: &mut Command) {
        let doors: Vec<File> = self.groups.iter().map(|group| door(group)).collect();
        // SAFETY: between fork and exec only `write` is called, which is safe there; nothing is
        // allocated.
        unsafe {
            command.pre_exec(move || {
                for door in &doors {
                    if libc::write(door.as_raw_fd(), b"0".as_ptr().cast(), 1) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
    }

    /// Processor time that all processes of the group have used.
    pub(crate) fn cpu(&self) -> Duration {
        let text = fs::read_to_string(&self.usage).expect("the group's use of processors");
        if self.version == 1 {
            return Duration::from_nanos(text.trim().parse().expect("nanoseconds"));
        }
        let usage = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        Duration::from_micros(usage.expect("a line").parse().expect("microseconds"))
    }

    /// The processes in the group.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let list = self.groups.first().map(|group| group.join("cgroup.procs"));
        let text = list.and_then(|list| fs::read_to_string(list).ok());
        text.unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect()
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        for group in &self.groups {
            let _ = fs::remove_dir(group);
        }
    }
}

fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("sessionkeep-bench-{}-{number}", std::process::id())
}

fn door(group: &Path) -> File {
    let path = group.join("cgroup.procs");
    OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a group that we made takes processes")
}
