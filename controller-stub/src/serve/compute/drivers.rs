//! Both drivers, each for its own machines: their names tell.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::watch;

use super::{Compute, Interface, Liveness, Machine, deaths::Deaths, namespaces::Namespaces, qemu::Qemu};
use crate::{
    error::Result,
    serve::{config::ComputeDriver, network::links::End},
};

/// Asks the driver of a machine.
macro_rules! its_driver {
    ($this:ident, $machine:expr, $driver:ident => $ask:expr) => {
        if $this.qemu.owns($machine) {
            let $driver = &$this.qemu;
            $ask
        } else {
            let $driver = &$this.namespaces;
            $ask
        }
    };
}

/// Whoever makes machines of this data directory.
#[derive(Debug)]
pub struct Drivers {
    namespaces: Namespaces,
    qemu: Qemu,
    deaths: Deaths,
}

impl Drivers {
    /// `deaths` is what both were given.
    pub fn new(namespaces: Namespaces, qemu: Qemu, deaths: Deaths) -> Self {
        Self { namespaces, qemu, deaths }
    }

    /// What the machine of a new amphora is called. No other has this name.
    ///
    /// # Errors
    /// The driver makes none here.
    pub fn name(&self, driver: ComputeDriver, amphora: &str) -> Result<String> {
        match driver {
            ComputeDriver::Namespaces => Ok(self.namespaces.name(amphora)),
            ComputeDriver::Qemu => self.qemu.image().map(|_| self.qemu.name(amphora)),
        }
    }
}

impl Drivers {
    /// Whether a machine that runs can be told of other authorities: a virtual one reads them when it boots, and never again.
    pub fn brings_authorities(&self, machine: &str) -> bool {
        !self.qemu.owns(machine)
    }

    /// The ends that a machine with these interfaces has on this host.
    pub fn ends(&self, machine: &str, interfaces: &[Interface]) -> Vec<End> {
        its_driver!(self, machine, driver => driver.ends(machine, interfaces))
    }
}

impl Compute for Drivers {
    fn boot_time(&self, machine: &str) -> Duration {
        its_driver!(self, machine, driver => driver.boot_time(machine))
    }

    async fn create(&self, machine: &Machine) -> Result<()> {
        its_driver!(self, &machine.name, driver => driver.create(machine).await)
    }

    async fn configure(&self, machine: &Machine) -> Result<()> {
        its_driver!(self, &machine.name, driver => driver.configure(machine).await)
    }

    async fn plug(&self, machine: &str, interface: &Interface) -> Result<()> {
        its_driver!(self, machine, driver => driver.plug(machine, interface).await)
    }

    async fn unplug(&self, machine: &str, port: &str) -> Result<()> {
        its_driver!(self, machine, driver => driver.unplug(machine, port).await)
    }

    async fn delete(&self, machine: &str) -> Result<()> {
        its_driver!(self, machine, driver => driver.delete(machine).await)
    }

    async fn list(&self) -> Result<BTreeSet<String>> {
        let mut all = self.namespaces.list().await?;
        all.extend(self.qemu.list().await?);
        Ok(all)
    }

    async fn alive(&self, machine: &str) -> Result<Liveness> {
        its_driver!(self, machine, driver => driver.alive(machine).await)
    }

    fn deaths(&self) -> watch::Receiver<u64> {
        self.deaths.subscribe()
    }
}
