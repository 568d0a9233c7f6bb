//! The load-balancer document: the one place where the agent meets the proxy's parser.

use amphora_proxy::{
    control::api::{Fault, Refusal},
    model::{LoadBalancer, MemberId, PoolId},
};
use bytes::Bytes;
use serde_json::Value;

mod interim;

/// What `PUT .../members/{id}` may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// `weight`, 0 to 256.
    pub weight: Option<u16>,
    /// `admin_state_up`.
    pub admin_state_up: Option<bool>,
}

/// Parses a whole document.
///
/// # Errors
/// Every fault that was found, each with its JSON path.
pub fn parse(document: &[u8]) -> Result<LoadBalancer, Refusal> {
    interim::from_json(document)
}

/// Changes one member of a document.
///
/// # Errors
/// `None` when the document has no such member in that pool.
pub fn set_member(document: &[u8], pool: PoolId, member: MemberId, change: MemberChange) -> Option<Bytes> {
    interim::set_member(document, pool, member, change)
}

/// Parses the body of `PUT .../members/{id}`: Octavia's `{"member": {...}}` with `weight` and `admin_state_up` alone.
///
/// # Errors
/// Every fault.
pub fn parse_member(body: &[u8]) -> Result<MemberChange, Refusal> {
    let mut faults = Vec::new();
    let mut fault = |path: &str, reason: &str| {
        faults.push(Fault { path: path.to_owned(), reason: reason.to_owned() });
    };
    let mut change = MemberChange::default();
    match serde_json::from_slice::<Value>(body) {
        Err(e) => fault("", &format!("not JSON: {e}")),
        Ok(Value::Object(root)) => {
            for name in root.keys().filter(|name| *name != "member") {
                fault(name, "unknown field");
            }
            match root.get("member") {
                None => fault("member", "is required"),
                Some(Value::Object(member)) => {
                    for (name, value) in member {
                        match name.as_str() {
                            "weight" => {
                                match value.as_u64().and_then(|w| u16::try_from(w).ok()).filter(|w| *w <= 256)
                                {
                                    Some(weight) => change.weight = Some(weight),
                                    None => fault("member.weight", "must be a whole number from 0 to 256"),
                                }
                            }
                            "admin_state_up" => match value.as_bool() {
                                Some(up) => change.admin_state_up = Some(up),
                                None => fault("member.admin_state_up", "must be true or false"),
                            },
                            _ => fault(
                                &format!("member.{name}"),
                                "only weight and admin_state_up can change here",
                            ),
                        }
                    }
                    if member.is_empty() {
                        fault("member", "weight or admin_state_up is required");
                    }
                }
                Some(_) => fault("member", "must be an object"),
            }
        }
        Ok(_) => fault("", "must be an object"),
    }
    if faults.is_empty() { Ok(change) } else { Err(Refusal { faults }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(body: &str) -> Vec<String> {
        let refusal = parse_member(body.as_bytes()).expect_err("refused");
        refusal.faults.into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn members_take_weight_and_state_alone() {
        assert_eq!(
            parse_member(br#"{"member": {"weight": 0, "admin_state_up": false}}"#),
            Ok(MemberChange { weight: Some(0), admin_state_up: Some(false) })
        );
        assert_eq!(
            faults(r#"{"member": {"weight": 257, "address": "10.0.0.1"}}"#),
            ["member.address", "member.weight"]
        );
        assert_eq!(faults(r#"{"weight": 1}"#), ["weight", "member"]);
        assert_eq!(faults(r#"{"member": {}}"#), ["member"]);
        assert_eq!(faults(r#"{"member": 1}"#), ["member"]);
        assert_eq!(faults("[]"), [""]);
        assert_eq!(faults("{"), [""]);
    }
}
