//! `[quotas]`.

use amphora_ini::{
    ConfigError,
    reader::{Reader, bounded},
};

/// `[quotas]`: of projects that have none of their own. -1 is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// `default_load_balancer_quota`.
    pub load_balancer: i64,
    /// `default_listener_quota`.
    pub listener: i64,
    /// `default_pool_quota`.
    pub pool: i64,
    /// `default_member_quota`.
    pub member: i64,
    /// `default_health_monitor_quota`.
    pub health_monitor: i64,
    /// `default_l7policy_quota`.
    pub l7policy: i64,
    /// `default_l7rule_quota`.
    pub l7rule: i64,
}

pub(super) fn read(read: &Reader<'_>) -> Result<Quotas, ConfigError> {
    let quota = |name| read.required("quotas", name, bounded(-1, i64::from(i32::MAX)));
    Ok(Quotas {
        load_balancer: quota("default_load_balancer_quota")?,
        listener: quota("default_listener_quota")?,
        pool: quota("default_pool_quota")?,
        member: quota("default_member_quota")?,
        health_monitor: quota("default_health_monitor_quota")?,
        l7policy: quota("default_l7policy_quota")?,
        l7rule: quota("default_l7rule_quota")?,
    })
}
