//! A reader of the parts of a document that the agent itself needs, until the model has its own parser.

use amphora_proxy::{
    control::api::{Fault, Refusal},
    model::{
        InsertHeaders, LbAlgorithm, Listener, ListenerProtocol, ListenerTimeouts, LoadBalancer,
        LoadBalancerId, Member, MemberId, Pool, PoolId, PoolProtocol, Vip,
    },
};
use bytes::Bytes;
use serde_json::Value;

use super::MemberChange;

pub(super) fn from_json(document: &[u8]) -> Result<LoadBalancer, Refusal> {
    read(document).map_err(|(path, reason)| Refusal { faults: vec![Fault { path, reason }] })
}

type Read<T> = Result<T, (String, String)>;

fn read(document: &[u8]) -> Read<LoadBalancer> {
    let root: Value =
        serde_json::from_slice(document).map_err(|e| (String::new(), format!("not JSON: {e}")))?;
    let lb = &root["loadbalancer"];
    let mut pools = array(lb, "pools").iter().map(pool).collect::<Read<Vec<_>>>()?;
    let mut listeners = Vec::new();
    for value in array(lb, "listeners") {
        let default = &value["default_pool"];
        let default_pool = if default.is_object() {
            let pool = pool(default)?;
            let id = pool.id;
            pools.push(pool);
            Some(id)
        } else {
            value["default_pool_id"].as_str().and_then(|id| id.parse().ok())
        };
        listeners.push(Listener {
            id: text(value, "id")?,
            name: name(value),
            admin_state_up: up(value),
            protocol: word(value, "protocol", ListenerProtocol::parse)?,
            port: port(value)?,
            connection_limit: value["connection_limit"].as_u64().and_then(|limit| u32::try_from(limit).ok()),
            default_pool,
            insert_headers: InsertHeaders::default(),
            l7policies: Vec::new(),
            timeouts: ListenerTimeouts::default(),
            allowed_cidrs: Vec::new(),
        });
    }
    Ok(LoadBalancer {
        id: text::<LoadBalancerId>(lb, "id").map_err(|(_, reason)| ("loadbalancer.id".to_owned(), reason))?,
        name: name(lb),
        admin_state_up: up(lb),
        vips: vec![Vip { address: text(lb, "vip_address")? }],
        listeners,
        pools,
    })
}

fn pool(value: &Value) -> Read<Pool> {
    let member = |value: &Value| {
        Ok(Member {
            id: text(value, "id")?,
            name: name(value),
            admin_state_up: up(value),
            address: text(value, "address")?,
            port: port(value)?,
            weight: value["weight"].as_u64().and_then(|w| u16::try_from(w).ok()).unwrap_or(1),
            backup: value["backup"].as_bool().unwrap_or(false),
            monitor_address: None,
            monitor_port: None,
        })
    };
    Ok(Pool {
        id: text(value, "id")?,
        name: name(value),
        admin_state_up: up(value),
        protocol: word(value, "protocol", PoolProtocol::parse)?,
        lb_algorithm: word(value, "lb_algorithm", LbAlgorithm::parse)?,
        session_persistence: None,
        health_monitor: None,
        members: array(value, "members").iter().map(member).collect::<Read<_>>()?,
    })
}

pub(super) fn set_member(
    document: &[u8],
    pool: PoolId,
    member: MemberId,
    change: MemberChange,
) -> Option<Bytes> {
    let mut root: Value = serde_json::from_slice(document).ok()?;
    let member = find(root.get_mut("loadbalancer")?, &pool.to_string(), &member.to_string())?;
    if let Some(weight) = change.weight {
        member["weight"] = weight.into();
    }
    if let Some(up) = change.admin_state_up {
        member["admin_state_up"] = up.into();
    }
    serde_json::to_vec(&root).ok().map(Bytes::from)
}

fn find<'a>(lb: &'a mut Value, pool: &str, member: &str) -> Option<&'a mut Value> {
    let shared = lb["pools"].is_array();
    let pools: Vec<&mut Value> = {
        let mut both: Vec<&mut Value> = Vec::new();
        let object = lb.as_object_mut()?;
        for (name, value) in object.iter_mut() {
            match name.as_str() {
                "pools" if shared => both.extend(value.as_array_mut()?),
                "listeners" => {
                    both.extend(value.as_array_mut()?.iter_mut().filter_map(|l| l.get_mut("default_pool")));
                }
                _ => {}
            }
        }
        both
    };
    let pool = pools.into_iter().find(|value| value["id"] == pool)?;
    pool["members"].as_array_mut()?.iter_mut().find(|value| value["id"] == member)
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn name(value: &Value) -> String {
    value["name"].as_str().unwrap_or_default().to_owned()
}

fn up(value: &Value) -> bool {
    value["admin_state_up"].as_bool().unwrap_or(true)
}

fn port(value: &Value) -> Read<u16> {
    let port = value["protocol_port"].as_u64().and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| ("protocol_port".to_owned(), "must be a port".to_owned()))
}

fn text<T: std::str::FromStr>(value: &Value, name: &str) -> Read<T> {
    let wrong = || (name.to_owned(), "is missing or malformed".to_owned());
    value[name].as_str().ok_or_else(wrong)?.parse().map_err(|_| wrong())
}

fn word<T>(value: &Value, name: &str, parse: impl Fn(&str) -> Option<T>) -> Read<T> {
    value[name]
        .as_str()
        .and_then(parse)
        .ok_or_else(|| (name.to_owned(), "is not a value that is carried".to_owned()))
}
