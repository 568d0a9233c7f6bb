//! What the rows say: work, amphorae, load balancers, and how large the database is.

use std::{collections::BTreeMap, fs, path::Path};

use prometheus::proto::MetricFamily;
use rusqlite::Connection;

use super::{gauge, gauges};
use crate::serve::{
    db,
    queue::Kind,
    status::{AmphoraStatus, OperatingStatus, ProvisioningStatus},
};

/// Work that was not tried yet, and work that has failed.
const STATES: [&str; 2] = ["waiting", "failing"];

/// What is counted in the rows of one state of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// By kind and whether it has failed.
    work: BTreeMap<(String, bool), i64>,
    /// Seconds since the oldest of a kind was asked for.
    oldest: BTreeMap<String, i64>,
    /// By status.
    amphorae: BTreeMap<String, i64>,
    /// By provisioning status.
    provisioning: BTreeMap<String, i64>,
    /// By operating status.
    operating: BTreeMap<String, i64>,
    /// When the first certificate of those in use ends, in seconds since 1970.
    certificate_ends: Option<i64>,
    /// Bytes of the database and of its log.
    size: [u64; 2],
}

impl Rows {
    /// Counts. `now` in milliseconds since 1970. Blocks.
    ///
    /// # Errors
    /// The database's.
    pub fn read(connection: &Connection, now: i64, database: &Path) -> Result<Self, db::Error> {
        let mut rows = Self::default();
        let mut query = connection
            .prepare_cached("SELECT kind, attempts > 0, count(*), min(created_at) FROM work GROUP BY 1, 2")?;
        let mut found = query.query([])?;
        while let Some(row) = found.next()? {
            let (kind, failing): (String, bool) = (row.get(0)?, row.get(1)?);
            let age = now.saturating_sub(row.get(3)?).max(0) / 1000;
            let oldest = rows.oldest.entry(kind.clone()).or_default();
            *oldest = age.max(*oldest);
            rows.work.insert((kind, failing), row.get(2)?);
        }
        rows.amphorae = count(connection, "SELECT status, count(*) FROM amphora GROUP BY 1")?;
        rows.provisioning =
            count(connection, "SELECT provisioning_status, count(*) FROM load_balancer GROUP BY 1")?;
        rows.operating =
            count(connection, "SELECT operating_status, count(*) FROM load_balancer GROUP BY 1")?;
        let ends = "SELECT min(cert_expiration) / 1000 FROM amphora WHERE status IN ('ALLOCATED', 'READY')";
        rows.certificate_ends = connection.prepare_cached(ends)?.query_row([], |row| row.get(0))?;
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        rows.size = [database, Path::new(&log)].map(|file| fs::metadata(file).map_or(0, |file| file.len()));
        Ok(rows)
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let of = |counted: &BTreeMap<String, i64>, word: &str| counted.get(word).copied().unwrap_or_default();
        let work = Kind::ALL.into_iter().flat_map(|kind| {
            STATES.into_iter().zip([false, true]).map(move |(state, failing)| {
                let count = self.work.get(&(kind.as_str().to_owned(), failing));
                (vec![kind.as_str(), state], count.copied().unwrap_or_default())
            })
        });
        let oldest = Kind::ALL.into_iter().map(|kind| (vec![kind.as_str()], of(&self.oldest, kind.as_str())));
        let words = |counted, all: Vec<&'static str>| {
            all.into_iter().map(|word| (vec![word], of(counted, word))).collect::<Vec<_>>()
        };
        let amphorae = words(&self.amphorae, AmphoraStatus::ALL.iter().map(|one| one.as_str()).collect());
        let provisioning =
            words(&self.provisioning, ProvisioningStatus::ALL.iter().map(|one| one.as_str()).collect());
        let operating = words(&self.operating, OperatingStatus::ALL.iter().map(|one| one.as_str()).collect());
        let [size, log] = self.size.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        [
            gauges(
                ("amphora_controller_work_items", "What is to be done: waiting, or failing and tried again."),
                &["kind", "state"],
                work,
            ),
            gauges(
                (
                    "amphora_controller_work_oldest_age_seconds",
                    "How long ago the oldest work of a kind was asked for; 0 when there is none.",
                ),
                &["kind"],
                oldest,
            ),
            gauges(("amphora_controller_amphorae", "Amphorae by status."), &["status"], amphorae),
            gauges(
                ("amphora_controller_load_balancers_provisioning", "Load balancers by provisioning status."),
                &["provisioning_status"],
                provisioning,
            ),
            gauges(
                ("amphora_controller_load_balancers_operating", "Load balancers by operating status."),
                &["operating_status"],
                operating,
            ),
            self.certificate_ends.map_or_else(Vec::new, |at| {
                let help = "When the first certificate of an amphora expires; only with amphorae.";
                gauge("amphora_controller_amphora_certificate_expiry_timestamp_seconds", help, at)
            }),
            gauge("amphora_controller_database_size_bytes", "Size of the database's file.", size),
            gauge(
                "amphora_controller_database_log_size_bytes",
                "Size of the database's write-ahead log.",
                log,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn count(connection: &Connection, query: &str) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut query = connection.prepare_cached(query)?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
