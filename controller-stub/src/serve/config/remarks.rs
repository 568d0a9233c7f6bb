//! What is ignored in the files. One that is misspelled restricts nobody.

use std::collections::BTreeSet;

use amphora_ini::dialect::{Assignment, Ini};

use super::defaults::DEFAULTS;

/// Options without a default that are read.
pub(super) const READ: &[(&str, &str)] = &[
    ("api_settings", "minimum_tls_version"),
    ("api_settings", "api_base_uri"),
    ("api_settings", "cert_file"),
    ("api_settings", "key_file"),
    ("certificates", "ca_certificate"),
    ("certificates", "ca_private_key"),
    ("certificates", "storage_path"),
    ("certificates", "shared_storage"),
    ("compute", "image"),
    ("compute", "agent_cmd"),
    ("compute", "proxy_cmd"),
    ("compute", "vrrp_cmd"),
    ("compute", "qemu_user"),
    ("health_manager", "heartbeat_key"),
    ("health_manager", "failover_threshold"),
];

/// Sections whose names are the operator's.
pub(super) const NAMED: &[&str] = &["allocation_pools", "networks", "users"];

/// A line for each.
pub(super) fn of(ini: &Ini) -> Vec<String> {
    let known = || DEFAULTS.iter().map(|(section, name, _)| (*section, *name)).chain(READ.iter().copied());
    let sections: BTreeSet<&str> = known().map(|(section, _)| section).chain(NAMED.iter().copied()).collect();
    let mut remarks = Vec::new();
    let mut told = BTreeSet::new();
    for Assignment { section, name, place, .. } in ini.assignments() {
        if !sections.contains(section.as_str()) {
            if told.insert(section) {
                remarks.push(format!("{place}: [{section}]: no such section here; it is ignored"));
            }
        } else if !NAMED.contains(&section.as_str()) && !known().any(|one| one == (section, name)) {
            remarks.push(format!("{place}: [{section}] {name}: no such option here; it is ignored"));
        }
    }
    remarks
}
