//! `/metrics`, in the OpenMetrics text format. Names and units follow the conventions of Prometheus
//! (<https://prometheus.io/docs/practices/naming/>). `docs/metrics.md` lists them, and a test holds the
//! two together.

use std::fmt::Error;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Site;
use crate::status::incidents::IncidentKind;
use crate::status::{Checks, HealthVerdict, Lease, Shared, Status};
use sessionkeep_core::control::Lifecycle;

const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const STATES: [(Lifecycle, &str); 10] = [
    (Lifecycle::Preflight, "preflight"),
    (Lifecycle::Restoring, "restoring"),
    (Lifecycle::Starting, "starting"),
    (Lifecycle::Running, "running"),
    (Lifecycle::Stopping, "stopping"),
    (Lifecycle::Flushing, "flushing"),
    (Lifecycle::Backoff, "backoff"),
    (Lifecycle::Standby, "standby"),
    (Lifecycle::Fenced, "fenced"),
    (Lifecycle::Exited, "exited"),
];

pub(super) async fn metrics(State(site): State<Site>) -> Response {
    let mut page = String::new();
    match text::encode(&mut page, &site.0.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, KIND)], page).into_response(),
        Err(Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// All of them.
pub(super) fn registry(shared: &Shared) -> Registry {
    let mut root = Registry::default();
    let ours = root.sub_registry_with_prefix("sessionkeep");
    let of = shared.meters();
    ours.register(
        "commits",
        "Commits that the store has taken",
        of.commits.clone(),
    );
    ours.register_with_unit(
        "commit_content",
        "Content that commits brought",
        Unit::Bytes,
        of.commit_bytes.clone(),
    );
    ours.register(
        "commit_changes",
        "Changes that commits hold",
        of.commit_changes.clone(),
    );
    ours.register_with_unit(
        "commit_duration",
        "From the look at the directory until the store has taken the commit",
        Unit::Seconds,
        of.commit_duration.clone(),
    );
    ours.register_with_unit(
        "commit_size",
        "Content of each commit",
        Unit::Bytes,
        of.commit_size.clone(),
    );
    ours.register("errors", "What failed, by kind", of.errors.clone());
    ours.register(
        "gateway_probes",
        "Answers of the gateway's probe",
        of.probes.clone(),
    );
    ours.register(
        "http_requests",
        "Answered requests, by status code",
        of.requests.clone(),
    );
    ours.register(
        "http_refused",
        "Requests with a wrong token or password",
        of.refused.clone(),
    );
    ours.register_collector(Box::new(StatusCollector(shared.clone())));
    root.register_collector(Box::new(Processes));
    root
}

/// What is read off the status when it is asked for.
#[derive(Debug)]
struct StatusCollector(Shared);

fn gauge(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Result<(), Error> {
    ConstGauge::new(value).encode(to.encode_descriptor(name, help, unit, MetricType::Gauge)?)
}

fn count(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Result<(), Error> {
    ConstCounter::new(value).encode(to.encode_descriptor(name, help, unit, MetricType::Counter)?)
}

fn gauges<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), Error> {
    let mut family = to.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a float is what the format has")]
fn float(value: u64) -> f64 {
    value as f64
}

fn seconds(ms: u64) -> f64 {
    float(ms) / 1000.0
}

impl Collector for StatusCollector {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), Error> {
        let (to, shared) = (&mut to, &self.0);
        let status = shared.read();
        let labels = [
            ("version", status.version),
            ("archive", status.archive.as_str()),
            ("instance", status.instance.as_str()),
        ];
        gauges(
            to,
            "info",
            "What runs here; always 1",
            None,
            [(labels, 1.0)],
        )?;
        let states =
            STATES.map(|(state, name)| ([("state", name)], f64::from(state == status.state)));
        gauges(to, "state", "1 for the lifecycle's state", None, states)?;
        let well = !matches!(Checks::of(&status).verdict(), HealthVerdict::Unhealthy(_));
        gauge(
            to,
            "healthy",
            "Whether all is well or on its way there",
            None,
            f64::from(well),
        )?;
        self.owning(to, &status)?;
        self.waiting(to, &status)?;
        self.saved(to, &status)?;
        self.lives(to)?;
        self.gateway(to, &status)?;
        Self::sessions(to, &status)?;
        let kinds = IncidentKind::ALL.map(|kind| (kind, shared.ledger().counts(kind)));
        let lasting = kinds.map(|(kind, (lasting, _))| ([("kind", kind.word())], float(lasting)));
        gauges(to, "incidents_open", "Incidents that last", None, lasting)?;
        let mut begun = to.encode_descriptor(
            "incidents",
            "Incidents that have begun",
            None,
            MetricType::Counter,
        )?;
        for (kind, (_, count)) in kinds {
            ConstCounter::new(count).encode(begun.encode_family(&[("kind", kind.word())])?)?;
        }
        Ok(())
    }
}

impl StatusCollector {
    /// Who owns the session, and whether the store answers.
    fn owning(&self, to: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
        let is_up = f64::from(status.store_reachable);
        gauge(
            to,
            "store_up",
            "Whether the store answered last time",
            None,
            is_up,
        )?;
        let held = f64::from(status.lease == Lease::Held);
        gauge(
            to,
            "lease_held",
            "Whether this instance owns the session",
            None,
            held,
        )?;
        gauge(
            to,
            "lease_epoch",
            "How often the session has changed hands",
            None,
            float(status.epoch),
        )
    }

    /// What is not saved yet, or not as it is.
    fn waiting(&self, to: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
        gauge(
            to,
            "lag",
            "How long changes have been waiting to be saved",
            Some(&Unit::Seconds),
            status.lag_seconds,
        )?;
        let waiting = status
            .lag_paths
            .map_or(f64::NAN, |paths| float(paths as u64));
        gauge(
            to,
            "lag_files",
            "How many paths wait; NaN for everything",
            None,
            waiting,
        )?;
        gauge(
            to,
            "not_whole_files",
            "Files that are torn or damaged on disk",
            None,
            float(status.not_whole),
        )?;
        gauge(
            to,
            "unsaved_entries",
            "Entries that are not saved as they are: those, and what cannot be read",
            None,
            float(status.unsaved),
        )
    }

    /// What is saved.
    fn saved(&self, to: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
        let (bytes, sec) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        let (seq, time) = status
            .head
            .as_ref()
            .map_or((0, 0), |head| (head.seq, head.time_ms));
        gauge(
            to,
            "head_seq",
            "Number of the newest commit",
            None,
            float(seq),
        )?;
        gauge(
            to,
            "last_commit_timestamp",
            "When that was made",
            sec,
            seconds(time),
        )?;
        gauge(
            to,
            "tree_files",
            "Files of the committed tree",
            None,
            float(status.files),
        )?;
        gauge(
            to,
            "tree",
            "Content of the committed tree",
            bytes,
            float(status.bytes),
        )?;
        if let Some(disk) = status.disk {
            gauge(
                to,
                "disk_free",
                "Room for the session directory",
                bytes,
                float(disk.free_bytes),
            )?;
        }
        Ok(())
    }

    /// How this life began, and the one before it ended.
    fn lives(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let sec = Some(&Unit::Seconds);
        let past = self.0.past();
        gauge(
            to,
            "restore_duration",
            "How long the restore of this life took",
            sec,
            past.restore_ms.map_or(f64::NAN, seconds),
        )?;
        gauge(
            to,
            "restored_files",
            "Files that it brought",
            None,
            float(past.restored_files),
        )?;
        gauge(
            to,
            "flush_duration",
            "How long the last final flush on this disk took",
            sec,
            past.flush_ms.map_or(f64::NAN, seconds),
        )
    }

    #[expect(clippy::unused_self, reason = "like the others")]
    fn gateway(&self, to: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
        let is_up = status.state == Lifecycle::Running && status.gateway_answers != Some(false);
        gauge(
            to,
            "gateway_up",
            "Whether the gateway runs and answers",
            None,
            f64::from(is_up),
        )?;
        count(
            to,
            "gateway_restarts",
            "How often it was started again",
            None,
            status.gateway_restarts.into(),
        )?;
        let since = status.gateway_started_ms.map_or(f64::NAN, seconds);
        gauge(
            to,
            "gateway_start_time",
            "When it was started",
            Some(&Unit::Seconds),
            since,
        )
    }

    fn sessions(to: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
        let bytes = Some(&Unit::Bytes);
        gauge(
            to,
            "sessions",
            "Sessions in the directory",
            None,
            float(status.sessions.len() as u64),
        )?;
        let of = |value: fn(&crate::status::ShownSession) -> f64| {
            let each = status.sessions.iter();
            each.map(move |(key, session)| ([("session", key.as_str())], value(session)))
        };
        gauges(
            to,
            "session_files",
            "Its committed files",
            None,
            of(|session| float(session.files)),
        )?;
        gauges(
            to,
            "session_content",
            "What they hold",
            bytes,
            of(|session| float(session.bytes)),
        )?;
        let logged_in = status.sessions.iter().filter_map(|(key, session)| {
            let working = session.gateway_status.as_deref()? == crate::integrations::waha::WORKING;
            Some(([("session", key.as_str())], f64::from(working)))
        });
        gauges(
            to,
            "session_logged_in",
            "Whether WAHA calls it WORKING",
            None,
            logged_in,
        )
    }
}

/// What Prometheus expects of any process, and the memory of init beside it.
#[derive(Debug)]
struct Processes;

impl Collector for Processes {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), Error> {
        let to = &mut to;
        let (bytes, sec) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        let resident = |pid: &str| {
            let page = float(
                u64::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??)
                    .ok()?,
            );
            let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            Some(text.split(' ').nth(1)?.parse::<f64>().ok()? * page)
        };
        if let Some(memory) = resident("self") {
            gauge(
                to,
                "process_resident_memory",
                "Memory of the process that answers",
                bytes,
                memory,
            )?;
        }
        if let Some(memory) = resident(&nix::unistd::getppid().to_string()) {
            gauge(
                to,
                "sessionkeep_init_resident_memory",
                "Memory of init",
                bytes,
                memory,
            )?;
        }
        let cpu = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
        if let Ok(cpu) = cpu.map(std::time::Duration::from) {
            count(
                to,
                "process_cpu",
                "CPU time of the process that answers",
                sec,
                cpu.as_secs_f64(),
            )?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            gauge(
                to,
                "process_open_fds",
                "Its open descriptors",
                None,
                float(open.count() as u64),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_is_documented_and_every_documented_one_is_there() {
        let mut page = String::new();
        text::encode(&mut page, &registry(&crate::status::tests::shared())).expect("encode");
        assert!(page.ends_with("# EOF\n"));
        let given: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let documented: BTreeSet<&str> = include_str!("../../../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .map(|name| name.strip_suffix("_total").unwrap_or(name))
            .collect();
        // Only where the disk was looked at.
        let there = documented
            .iter()
            .copied()
            .filter(|name| *name != "sessionkeep_disk_free_bytes");
        assert_eq!(given, there.collect());
    }
}
