//! `info` and `details`: what Octavia asks of the machine and of what runs on it.

use std::{collections::BTreeMap, fs};

use hyper::StatusCode;
use nix::sys::statvfs::statvfs;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use super::{
    API_VERSION,
    answer::{Answer, Refused, json},
};
use crate::rest::api::{Api, hostname};

/// The HAProxy whose dialect is understood here, not one that is there. It has to look like a version, and one with all that
/// Octavia's templates can render.
const HAPROXY: &str = "2.8.3";

/// The keepalived whose dialect is understood here.
const KEEPALIVED: &str = "2.2.7";

pub(super) fn info() -> Value {
    json!({
        "hostname": hostname(),
        "haproxy_version": HAPROXY,
        "api_version": API_VERSION,
        "keepalived_version": KEEPALIVED,
    })
}

pub(super) async fn details(api: &Api) -> Result<Answer, Refused> {
    let machine = spawn_blocking(machine);
    let (machine, networks, running) =
        tokio::join!(machine, api.plumbing.traffic(), api.amphora.proxy().info());
    let failed = |error: String| {
        Refused::because(StatusCode::INTERNAL_SERVER_ERROR, "cannot look at the machine", error)
    };
    let machine = machine.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
    let networks: Map<_, _> = networks
        .unwrap_or_default()
        .into_iter()
        .map(|(name, traffic)| (name, json!({ "network_tx": traffic.tx, "network_rx": traffic.rx })))
        .collect();
    let runs = running.is_ok_and(|info| info.loadbalancer.is_some());
    let listed = api.amphora.listeners();
    let datagrams = listed.iter().filter(|listener| listener.kind == "UDP" && listener.runs).count();
    let runs = runs && listed.iter().any(|listener| listener.kind != "UDP" && listener.runs);
    let mut listeners: Vec<_> = listed.iter().map(|listener| listener.id.to_string()).collect();
    listeners.sort();
    let mut details = json!({
        "networks": networks,
        "active": true,
        "haproxy_count": u8::from(runs),
        "topology": api.topology.as_str(),
        "topology_status": "OK",
        "listeners": listeners,
        // Octavia's profile for its own amphora would have it say how many threads HAProxy has.
        "active_tuned_profiles": "",
        "packages": {},
        "lvs_listener_process_count": datagrams,
    });
    if let (Value::Object(details), Value::Object(machine), Value::Object(info)) =
        (&mut details, machine, info())
    {
        details.extend(machine.into_iter().chain(info));
    }
    Ok(json(StatusCode::OK, &details))
}

/// Processors, memory, disk and load. Blocks.
#[expect(clippy::disallowed_methods, reason = "procfs answers from memory, and this is a blocking thread")]
fn machine() -> Result<Value, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let (stat, meminfo, loadavg) = (read("/proc/stat")?, read("/proc/meminfo")?, read("/proc/loadavg")?);
    let disk = statvfs("/").map_err(|error| format!("/: {error}"))?;
    let size = disk.fragment_size();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let load: Vec<_> = loadavg.split(' ').take(3).collect();
    Ok(json!({
        "cpu_count": cpus,
        "cpu": cpu(&stat),
        "memory": memory(&meminfo),
        "disk": {
            "used": (disk.blocks() - disk.blocks_free()).saturating_mul(size),
            "available": disk.blocks_available().saturating_mul(size),
        },
        "load": load,
    }))
}

/// The first line of `/proc/stat`, in ticks. All but the sum are text in Octavia's own agent.
fn cpu(stat: &str) -> Value {
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<_> = first.split_whitespace().skip(1).collect();
    let of = |at: usize| ticks.get(at).copied().unwrap_or("0");
    let total: u64 = ticks.iter().filter_map(|text| text.parse::<u64>().ok()).sum();
    json!({ "total": total, "user": of(0), "system": of(2), "soft_irq": of(6) })
}

/// `/proc/meminfo`, in kB.
fn memory(meminfo: &str) -> Value {
    let fields: BTreeMap<_, _> = meminfo.lines().filter_map(|line| line.split_once(':')).collect();
    let of = |name: &str| {
        let text = fields.get(name).and_then(|value| value.split_whitespace().next());
        text.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()
    };
    json!({
        "total": of("MemTotal"),
        "free": of("MemFree"),
        "buffers": of("Buffers"),
        "cached": of("Cached"),
        "swap_used": of("SwapCached"),
        "shared": of("Shmem"),
        "slab": of("Slab"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procfs_is_told_in_octavias_words() {
        let cpu = cpu("cpu  4705 356 584 3699 23 0 26 1 2 3\ncpu0 1 1 1\n");
        assert_eq!(cpu, json!({"total": 9399, "user": "4705", "system": "584", "soft_irq": "26"}));
        let memory = memory(
            "MemTotal:        1014000 kB\nMemFree:          200000 kB\nCached: 7 kB\nHugePages_Total: 0\n",
        );
        assert_eq!(
            (&memory["total"], &memory["free"], &memory["cached"]),
            (&json!(1_014_000), &json!(200_000), &json!(7))
        );
    }
}
