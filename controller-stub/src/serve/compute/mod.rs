//! Where amphorae are: hosts of theirs, which are made, looked for and taken down.
//!
//! | module | what |
//! | --- | --- |
//! | [`namespaces`] | a network namespace of this host each |
//! | [`qemu`] | a virtual machine each |
//! | [`drivers`] | both |
//! | [`deaths`] | machines that end by themselves |
//! | `processes` | who runs on this host |
//! | [`size`] | how large a machine is |

pub mod deaths;
pub mod drivers;
pub mod namespaces;
mod processes;
pub mod qemu;
pub mod size;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::sync::watch;

pub use self::{drivers::Drivers, size::Size};
use crate::error::Result;

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it is called by who makes it: the row's `compute_id`, from [`Drivers::name`].
    pub name: String,
    /// The amphora's id.
    pub amphora: String,
    /// Where its agent is to be.
    pub agent: SocketAddr,
    /// Whether it is one of a pair, with VRRP.
    pub paired: bool,
    /// How large it is, of a driver whose machines have sizes.
    pub size: Size,
    /// The authority of controllers, PEM.
    pub authority: String,
    /// Its agent's key and certificate, PEM.
    pub certificate: String,
}

/// An interface of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The port's id.
    pub port: String,
    /// The network's bridge.
    pub bridge: String,
    /// Its link-layer address.
    pub mac: String,
}

/// How a machine is, for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// There is nothing of it.
    Absent,
    /// It runs.
    Running,
    /// Something of it is there, and it does not run.
    Dead,
}

/// Who makes machines. Everything may be asked again, whatever has become of it before.
pub trait Compute: Send + Sync + 'static {
    /// How long a machine may take from its creation until its agent answers.
    fn boot_time(&self, machine: &str) -> Duration;

    /// Makes a machine and starts it; what runs already is left alone.
    ///
    /// # Errors
    /// Why there is none. What there is of it is taken down by [`delete`](Self::delete).
    fn create(&self, machine: &Machine) -> impl Future<Output = Result<()>> + Send;

    /// Brings a machine that runs its files, and lets it read them: another certificate, other addresses of controllers.
    ///
    /// # Errors
    /// It does not run, or has not got them.
    fn configure(&self, machine: &Machine) -> impl Future<Output = Result<()>> + Send;

    /// Gives a machine an interface; one that it has is left alone.
    ///
    /// # Errors
    /// Why it has none.
    fn plug(&self, machine: &str, interface: &Interface) -> impl Future<Output = Result<()>> + Send;

    /// Takes the interface of a port from a machine; one that it has not is no error.
    ///
    /// # Errors
    /// It may have it still.
    fn unplug(&self, machine: &str, port: &str) -> impl Future<Output = Result<()>> + Send;

    /// Takes a machine down, with all that it had. After that nothing of it runs.
    ///
    /// # Errors
    /// Something of it may be left.
    fn delete(&self, machine: &str) -> impl Future<Output = Result<()>> + Send;

    /// The names of all machines of which something is there.
    ///
    /// # Errors
    /// They cannot be listed.
    fn list(&self) -> impl Future<Output = Result<BTreeSet<String>>> + Send;

    /// How a machine is.
    ///
    /// # Errors
    /// It cannot be found out, which is no reason to replace it.
    fn alive(&self, machine: &str) -> impl Future<Output = Result<Liveness>> + Send;

    /// Counts machines that have ended by themselves: it changes at once when one has.
    fn deaths(&self) -> watch::Receiver<u64>;
}
