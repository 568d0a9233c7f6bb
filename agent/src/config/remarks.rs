//! What is ignored in the files, or taken although it is odd.

use uuid::Uuid;

use amphora_ini::dialect::{Assignment, Ini};

use super::{DEFAULTS, OWN};

/// Options without a default that are read.
const READ: &[(&str, &str)] = &[
    ("health_manager", "heartbeat_key"),
    ("amphora_agent", "amphora_id"),
    ("amphora_agent", "agent_client_crl"),
];

/// What Octavia's template writes besides: for HAProxy, keepalived, syslog and the agent's own network files.
const OCTAVIAS: &[(&str, &str)] = &[
    ("DEFAULT", "use_syslog"),
    ("DEFAULT", "syslog_log_facility"),
    ("haproxy_amphora", "base_cert_dir"),
    ("haproxy_amphora", "haproxy_cmd"),
    ("haproxy_amphora", "user_log_facility"),
    ("haproxy_amphora", "administrative_log_facility"),
    ("amphora_agent", "agent_server_network_dir"),
    ("amphora_agent", "amphora_udp_driver"),
];

/// A line for each.
pub(super) fn of(ini: &Ini) -> Vec<String> {
    let mut remarks: Vec<String> = ini
        .assignments()
        .iter()
        .filter(|assignment| is_unknown(assignment) && !is_referred_to(ini, assignment))
        .map(|Assignment { section, name, place, .. }| {
            format!("{place}: [{section}] {name}: no such option here; it is ignored")
        })
        .collect();
    let id = ini.get("amphora_agent", "amphora_id");
    if let Some(id) = id.filter(|id| !id.value.contains('$') && Uuid::try_parse(&id.value).is_err()) {
        remarks
            .push(format!("[amphora_agent] amphora_id: {:?} is not a UUID, as Octavia's ids are", id.value));
    }
    remarks
}

/// In a section that is read; the others are of other services.
fn is_unknown(assignment: &Assignment) -> bool {
    let Assignment { section, name, .. } = assignment;
    let read = || DEFAULTS.iter().map(|(section, name, _)| (*section, *name)).chain(READ.iter().copied());
    section != OWN
        && read().any(|(s, _)| s == section)
        && !read().chain(OCTAVIAS.iter().copied()).any(|known| known == (section, name))
}

/// Whether a value may refer to it: then it is there for that.
fn is_referred_to(ini: &Ini, assignment: &Assignment) -> bool {
    let Assignment { section, name, .. } = assignment;
    let forms = [format!("${name}"), format!("${{{name}}}"), format!("{section}.{name}")];
    ini.assignments().iter().any(|a| forms.iter().any(|form| a.value.contains(form)))
}
