//! The load-balancer document: the one place where the agent meets the proxy's parser.

use amphora_model::{LoadBalancer, MemberId, MemberUpdate, PoolId, Refusal};
use bytes::Bytes;
use serde_json::Value;

/// Parses a whole document.
///
/// # Errors
/// Every fault that was found, each with its JSON path.
pub fn parse(document: &[u8]) -> Result<LoadBalancer, Refusal> {
    LoadBalancer::from_json(document)
}

/// Parses the body of `PUT .../members/{id}`: Octavia's `{"member": {...}}` with `weight` and `admin_state_up` alone.
///
/// # Errors
/// Every fault.
pub fn parse_member(body: &[u8]) -> Result<MemberUpdate, Refusal> {
    MemberUpdate::from_json(body)
}

/// Changes one member: the model after it, and the document that says so and is otherwise as it was. `None` when
/// there is no such member in that pool.
///
/// # Errors
/// When the document itself is faulty.
pub fn set_member(
    document: &[u8],
    pool: PoolId,
    member: MemberId,
    update: &MemberUpdate,
) -> Result<Option<(LoadBalancer, Bytes)>, Refusal> {
    let mut model = parse(document)?;
    if model.set_member(pool, member, update).is_err() {
        return Ok(None);
    }
    let patched = serde_json::from_slice::<Value>(document).ok().and_then(|mut root| {
        patch(&mut root, &pool.to_string(), &member.to_string(), update).then_some(root)
    });
    // The canonical document says the same, but has lost descriptions and tags.
    let root = patched.unwrap_or_else(|| model.to_json());
    let document = serde_json::to_vec(&root).expect("the keys are strings");
    Ok(Some((model, document.into())))
}

/// Finds the pool, which may be shared, a listener's default or a policy's, and changes the member in it.
fn patch(value: &mut Value, pool: &str, member: &str, update: &MemberUpdate) -> bool {
    let is = |value: &Value, id: &str| value["id"].as_str().is_some_and(|text| text.eq_ignore_ascii_case(id));
    match value {
        Value::Array(values) => values.iter_mut().any(|value| patch(value, pool, member, update)),
        Value::Object(_) if is(value, pool) && value["members"].is_array() => {
            let members = value["members"].as_array_mut();
            let Some(member) = members.and_then(|all| all.iter_mut().find(|m| is(m, member))) else {
                return false;
            };
            if let Some(weight) = update.weight() {
                member["weight"] = weight.into();
            }
            if let Some(up) = update.admin_state_up() {
                member["admin_state_up"] = up.into();
            }
            true
        }
        Value::Object(object) => object.values_mut().any(|value| patch(value, pool, member, update)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixture::DOCUMENT;

    #[test]
    fn a_member_changes_and_nothing_else_does() {
        let document = DOCUMENT.replace(r#""name": "lb""#, r#""name": "lb", "description": "kept""#);
        let update = parse_member(br#"{"member": {"weight": 7, "admin_state_up": false}}"#).unwrap();
        let before = parse(document.as_bytes()).unwrap();
        let (pool, member) = (before.pools[0].id, before.pools[0].members[1].id);
        let (model, changed) = set_member(document.as_bytes(), pool, member, &update).unwrap().unwrap();
        assert_eq!(parse(&changed).unwrap(), model);
        let mut expected: Value = serde_json::from_str(&document).unwrap();
        let member_json = &mut expected["loadbalancer"]["listeners"][0]["default_pool"]["members"][1];
        member_json["weight"] = 7.into();
        member_json["admin_state_up"] = false.into();
        assert_eq!(serde_json::from_slice::<Value>(&changed).unwrap(), expected);
        let stranger = before.pools[0].id.to_string().parse().unwrap();
        assert_eq!(set_member(document.as_bytes(), pool, stranger, &update).unwrap(), None);
    }
}
