//! What `serve` is told by its files: oslo's dialect, with Octavia's own sections and options where the meaning is the same. `docs/serve-options.md`
//! has every option. Each has a default, so that `serve` alone works.

pub mod allocation_pools;
pub mod api_settings;
pub mod certificates;
pub mod compute;
mod defaults;
pub mod health_manager;
pub mod house_keeping;
pub mod listeners;
pub mod networking;
pub mod networks;
pub mod quotas;
mod remarks;
#[cfg(test)]
mod tests;
pub mod users;

use std::time::Duration;

pub use amphora_ini::{
    ConfigError,
    sources::{Source, Sources},
};
use amphora_ini::{
    dialect::Ini,
    reader::{Reader, boolean, bounded, error},
};

use self::defaults::{ABSENT, DEFAULTS};
pub use self::{
    allocation_pools::AllocationPool,
    api_settings::{ApiSettings, AuthStrategy},
    certificates::Certificates,
    compute::{Compute, ComputeDriver},
    health_manager::HealthManager,
    house_keeping::HouseKeeping,
    listeners::ListenerDefaults,
    networking::Networking,
    networks::{Network, Subnet},
    quotas::Quotas,
    users::{Project, User},
};
use super::status::Topology;

/// All that `serve` is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[DEFAULT] debug`: log at debug level.
    pub debug: bool,
    /// `[api_settings]`.
    pub api: ApiSettings,
    /// `[controller_worker]`.
    pub worker: Worker,
    /// `[health_manager]`.
    pub health: HealthManager,
    /// `[house_keeping]`.
    pub house_keeping: HouseKeeping,
    /// `[certificates]`.
    pub certificates: Certificates,
    /// `[haproxy_amphora]`: what listeners have that say nothing.
    pub listener: ListenerDefaults,
    /// `[compute]`.
    pub compute: Compute,
    /// `[networks]`, at least one.
    pub networks: Vec<Network>,
    /// `[networking]`.
    pub networking: Networking,
    /// `[quotas]`.
    pub quotas: Quotas,
    /// `[users]`; at least one where the API asks who it is.
    pub users: Vec<User>,
    /// What is ignored in the files, a line each.
    pub remarks: Vec<String>,
}

/// `[controller_worker]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// `loadbalancer_topology`: of load balancers whose flavor does not say.
    pub topology: Topology,
    /// `workers`: how many load balancers are worked on at a time.
    pub workers: usize,
}

impl Config {
    /// Reads files.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::of(&sources.read()?)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::of(&Ini::parse(text).map_err(ConfigError::Syntax)?)
    }

    fn of(ini: &Ini) -> Result<Self, ConfigError> {
        if let Some((section, name)) = ABSENT.iter().find(|(section, name)| ini.get(section, name).is_some())
        {
            let place = ini.get(section, name).map(|assignment| assignment.place.clone());
            return Err(error(section, name, place, "there is no such thing here yet".to_owned()));
        }
        let read = Reader { ini, defaults: DEFAULTS };
        let (api, users) = (api_settings::read(&read)?, users::read(&read)?);
        if api.auth != AuthStrategy::NoAuth && users.is_empty() {
            let place = read.place("api_settings", "auth_strategy");
            return Err(error("api_settings", "auth_strategy", place, "needs users in [users]".to_owned()));
        }
        let mut networks = networks::read(&read)?;
        allocation_pools::read(&read, &mut networks)?;
        Ok(Self {
            debug: read.required("DEFAULT", "debug", boolean)?,
            api,
            worker: Worker {
                topology: read.required("controller_worker", "loadbalancer_topology", Topology::parse)?,
                workers: read.required("controller_worker", "workers", bounded(1, 1000))?,
            },
            health: health_manager::read(&read)?,
            house_keeping: house_keeping::read(&read)?,
            certificates: certificates::read(&read)?,
            listener: listeners::read(&read)?,
            compute: compute::read(&read, &networks)?,
            networks,
            networking: networking::read(&read)?,
            quotas: quotas::read(&read)?,
            remarks: [remarks::of(ini), users::remarks(&users)].concat(),
            users,
        })
    }
}

/// Seconds up to 100 years, where a day would not do.
fn span(least: u64) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| bounded(least, 100 * 366 * 86_400)(text).map(Duration::from_secs)
}

/// oslo's list.
fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
