//! `plug/vip`, `plug/network`, `interface`: the ports of the load balancer.

use std::{net::IpAddr, sync::Arc};

use amphora_model::Refusal;
use amphora_netlink::InterfaceName;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refused, done, done_so, json};
use crate::{
    plumbing::{Outcome, PlugError, Port, filter},
    rest::{api::Api, error::ApiError, server::Caller},
};

/// `POST plug/vip/<ip>`.
pub(super) async fn vip(
    api: &Api,
    vip: &str,
    is_json: bool,
    content: &[u8],
    caller: &Caller,
) -> Result<Answer, Refused> {
    const WRONG: &str = "Invalid subnet information";
    let required = ["subnet_cidr", "gateway", "mac_address"];
    object(is_json, content, &required).ok_or_else(|| Refused::bad_request(WRONG))?;
    let (mac, port) = Port::from_plug_vip(vip, content).map_err(|refusal| wrong_vip(&refusal, WRONG))?;
    let vips = port.vip.iter().flat_map(|vip| &vip.vips).map(|vip| exploded(vip.address));
    let vips: Vec<_> = vips.collect();
    let plumbing = Arc::clone(&api.plumbing);
    let change = async move {
        if plumbing.find(mac).await.is_some() && !plumbing.failures().contains_key(&mac) {
            return Ok(None);
        }
        plumbing.plug_filtered(mac, port).await.map(Some)
    };
    let Some(outcome) = plugged(api.changes.interfaces.run(caller, change).await)? else {
        return Err(Refused::said(StatusCode::CONFLICT, "Interface already exists"));
    };
    api.metrics.changes.inc();
    let details = format!("VIPs plugged on interface {}: {}", outcome.interface, vips.join(", "));
    Ok(done_so(StatusCode::ACCEPTED, details))
}

/// `POST plug/network`.
pub(super) async fn network(
    api: &Api,
    is_json: bool,
    content: &[u8],
    caller: &Caller,
) -> Result<Answer, Refused> {
    const WRONG: &str = "Invalid port information";
    object(is_json, content, &["mac_address"]).ok_or_else(|| Refused::bad_request(WRONG))?;
    let (mac, port) = match Port::from_plug_network(content) {
        Ok(read) => read,
        Err(refusal) => return Err(wrong_port(&refusal)),
    };
    let plumbing = Arc::clone(&api.plumbing);
    let change = async move { plumbing.plug_network(mac, port).await };
    let Outcome { interface, moved, .. } = plugged(api.changes.interfaces.run(caller, change).await)?;
    api.plumbing.leased(mac).await;
    api.metrics.changes.inc();
    let done = if moved { "Plugged on interface" } else { "Updated existing interface" };
    Ok(done_so(StatusCode::ACCEPTED, format!("{done} {interface}")))
}

/// `GET interface/<ip>`.
pub(super) async fn interface(api: &Api, ip: &str) -> Result<Answer, Refused> {
    let interface = find(api, ip).await?;
    Ok(json(StatusCode::OK, &json!({ "message": "OK", "interface": interface.as_str() })))
}

/// `PUT interface/<ip>/rules`.
pub(super) async fn rules(
    api: &Api,
    ip: &str,
    is_json: bool,
    content: &[u8],
    caller: &Caller,
) -> Result<Answer, Refused> {
    const WRONG: &str = "Invalid rules information";
    let interface = find(api, ip).await?;
    let rules = if is_json { filter::read(content) } else { Err("is not application/json".to_owned()) };
    let rules = rules.map_err(|reason| {
        tracing::warn!(ip, reason, "rules for what comes in are refused");
        Refused::bad_request(WRONG)
    })?;
    let plumbing = Arc::clone(&api.plumbing);
    let change = async move { plumbing.set_filter(interface, Some(rules)).await };
    let set = api.changes.interfaces.run(caller, change).await;
    set.map_err(|error| Refused::under("Unable to set the rules", error))?;
    api.metrics.changes.inc();
    Ok(done(StatusCode::OK))
}

async fn find(api: &Api, ip: &str) -> Result<InterfaceName, Refused> {
    let invalid = || Refused::said(StatusCode::BAD_REQUEST, "Invalid IP address");
    let address: IpAddr = ip.parse().map_err(|_| invalid())?;
    let none = || Refused::said(StatusCode::NOT_FOUND, "Error interface not found for IP address");
    match api.plumbing.interface_of(address).await {
        Ok(interface) => interface.ok_or_else(none),
        Err(PlugError::NoNamespace) => Err(none()),
        Err(error) => Err(Refused::under("Error looking for the interface", error)),
    }
}

/// A body that is an object with these fields, whatever is in them.
fn object(is_json: bool, content: &[u8], fields: &[&str]) -> Option<Map<String, Value>> {
    let Value::Object(object) = serde_json::from_slice(content).ok().filter(|_| is_json)? else {
        return None;
    };
    fields.iter().all(|field| object.contains_key(*field)).then_some(object)
}

fn wrong_vip(refusal: &Refusal, otherwise: &str) -> Refused {
    let of = |what: &str| refusal.faults.iter().find(|fault| fault.path.starts_with(what));
    let refused =
        |what: &str, reason: &str| Refused::said(StatusCode::BAD_REQUEST, format!("{what}: {reason}"));
    match (of("vips"), of("vrrp_ip"), refusal.faults.iter().find(|fault| !fault.path.is_empty())) {
        (Some(fault), ..) => refused("Invalid VIP", &fault.reason),
        (_, Some(fault), _) => refused("Invalid VRRP Address", &fault.reason),
        (.., Some(fault)) => refused(otherwise, &format!("{} {}", fault.path, fault.reason)),
        _ => Refused::bad_request(otherwise),
    }
}

fn wrong_port(refusal: &Refusal) -> Refused {
    Refused::because(StatusCode::BAD_REQUEST, "Invalid network port", refusal.to_string())
}

fn plugged<T>(outcome: Result<T, ApiError>) -> Result<T, Refused> {
    outcome.map_err(|error| {
        if error.is_no_interface() {
            Refused::no_interface()
        } else {
            Refused::under("Error plugging the port", error)
        }
    })
}

/// As Python's `ipaddress` writes it in full.
fn exploded(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let groups: Vec<_> = v6.segments().iter().map(|group| format!("{group:04x}")).collect();
            groups.join(":")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_are_written_in_full() {
        assert_eq!(exploded("fd77::100".parse().unwrap()), "fd77:0000:0000:0000:0000:0000:0000:0100");
        assert_eq!(exploded("10.77.0.100".parse().unwrap()), "10.77.0.100");
    }
}
