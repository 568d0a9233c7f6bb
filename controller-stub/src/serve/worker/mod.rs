//! The reconciler: what the rows say becomes so.
//!
//! | module | what |
//! | --- | --- |
//! | [`plan`] | the next step for one load balancer; no I/O |
//! | [`rows`] | what is read and written |
//! | [`task`] | steps, one after another, until nothing is to be done for one load balancer |
//! | `meanwhile` | what those are told that serve while others boot |
//! | [`outside`] | machines and agents |
//! | [`schedule`] | which load balancers are worked on, when |
//! | [`spares`] | amphorae that wait for a load balancer |
//!
//! A step reads the rows, does one thing, and says so in the rows. What it does may be done already; whoever was killed on the
//! way, or failed, begins again with what is there. Nothing is made that no row names.

mod meanwhile;
pub mod outside;
pub mod plan;
pub mod rows;
pub mod schedule;
#[cfg(test)]
mod simulation;
pub mod spares;
pub mod task;

use std::{collections::BTreeSet, time::Duration};

use rusqlite::Connection;
use tokio::sync::watch;

use super::{
    compute::Liveness,
    db,
    db::Db,
    document::Rendered,
    status::{AmphoraStatus, Role},
};
use crate::error::{Error, Result};

/// What is asked of the database.
pub trait Store: Clone + Send + Sync + 'static {
    /// Runs `piece` in a transaction, which is on the disk when this returns.
    fn write<T, F>(&self, piece: F) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static;

    /// Runs `query` on one state of the database.
    fn read<T, F>(&self, query: F) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static;

    /// Milliseconds since 1970.
    fn now(&self) -> i64;

    /// It changes when something was written.
    fn changes(&self) -> watch::Receiver<u64>;
}

impl Store for Db {
    async fn write<T, F>(&self, piece: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        Self::write(self, move |transaction| piece(transaction)).await
    }

    async fn read<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        Self::read(self, move |transaction| query(transaction)).await
    }

    fn now(&self) -> i64 {
        let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        i64::try_from(now).unwrap_or(i64::MAX)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        Self::changes(self)
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        Self::Local(error.to_string())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        db::Error::from(error).into()
    }
}

/// Machines and agents, as steps need them. Everything may be asked again.
pub trait Outside: Send + Sync + 'static {
    /// `compute_driver` of load balancers without a flavor.
    fn driver(&self) -> &'static str;

    /// `compute_id` of an amphora of a driver.
    ///
    /// # Errors
    /// There is no such driver, or it makes none here.
    fn name(&self, driver: &str, amphora: &str) -> Result<String>;

    /// How long a machine may take until its agent answers.
    fn boot_time(&self, machine: &str) -> Duration;

    /// How long a certificate that is issued now is valid, in milliseconds.
    fn validity_ms(&self) -> i64;

    /// How an amphora's machine is.
    ///
    /// # Errors
    /// It cannot be found out, which is no reason to replace it.
    fn alive(&self, amphora: &rows::Amphora) -> impl Future<Output = Result<Liveness>> + Send;

    /// Makes the machine, and waits until its agent answers and its daemons run.
    fn boot(&self, amphora: &rows::Amphora, paired: bool) -> impl Future<Output = Result<Given>> + Send;

    /// Takes the machine down.
    fn remove(&self, machine: &str) -> impl Future<Output = Result<()>> + Send;

    /// Makes one of `lb.amphorae` what it is to be; `fresh` ones are told everything.
    fn apply(&self, told: &Told, amphora: &rows::Amphora) -> impl Future<Output = Result<Taken>> + Send;

    /// Takes a port from an amphora.
    fn unplug(&self, amphora: &rows::Amphora, port: &rows::Port) -> impl Future<Output = Result<()>> + Send;

    /// Brings the agent its configuration and a new certificate.
    fn configure(&self, amphora: &rows::Amphora, paired: bool) -> impl Future<Output = Result<Given>> + Send;

    /// Whether it holds the addresses of its pair; `None` when it cannot be asked.
    fn is_master(&self, amphora: &rows::Amphora) -> impl Future<Output = Option<bool>> + Send;

    /// Lets the first of a pair hand over to the second, and waits until that is master.
    fn hand_over(&self, from: &rows::Amphora, to: &rows::Amphora) -> impl Future<Output = Result<()>> + Send;

    /// Brings what amphorae have on this host to what it is to be, once for all of them; gives what leads nowhere any more.
    ///
    /// # Errors
    /// It cannot be found out how it is.
    fn mend(&self, amphorae: &[rows::Amphora]) -> impl Future<Output = Result<Vec<Severed>>> + Send;

    /// The names of all machines of which something is there.
    fn list(&self) -> impl Future<Output = Result<BTreeSet<String>>> + Send;
}

/// A link of an amphora that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Severed {
    /// The amphora's id.
    pub amphora: String,
    /// The port's; `None` of the link by which its machine is managed.
    pub port: Option<String>,
}

/// What an agent was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// When its certificate ends, in milliseconds since 1970.
    pub ends: i64,
    /// The mark of whom it trusts, and of who has issued that; `None` when it trusts whom it has trusted before.
    pub trust: Option<String>,
}

/// What an amphora took of what it was told.
#[derive(Debug)]
pub struct Taken {
    /// What its heartbeats call the document from now on.
    pub document: String,
    /// Why something of it is lacking, as a listener whose certificate is gone. All else is so.
    pub lacking: Option<Error>,
}

/// What amphorae of a load balancer are told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its rows.
    pub lb: rows::LoadBalancer,
    /// Its document.
    pub rendered: Rendered,
    /// Roles by the amphora's id.
    pub roles: Vec<(String, Role)>,
}

impl Told {
    /// The other one of a pair that an amphora is told of: of those that are told together, else of all that stay.
    pub fn other(&self, amphora: &rows::Amphora) -> Option<&rows::Amphora> {
        let stays = |one: &&rows::Amphora| one.id != amphora.id && one.status != AmphoraStatus::PendingDelete;
        let together = |one: &&rows::Amphora| self.roles.iter().any(|(id, _)| *id == one.id);
        let others = || self.lb.amphorae.iter().filter(stays);
        others().find(together).or_else(|| others().next())
    }

    /// The role of an amphora.
    pub fn role(&self, amphora: &str) -> Role {
        let found = self.roles.iter().find(|(id, _)| id == amphora);
        found.map_or(Role::Standalone, |(_, role)| *role)
    }
}

/// How long a step may take, beside what machines take to boot.
const STEP: Duration = Duration::from_secs(60);
