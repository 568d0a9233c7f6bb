//! `member`: a patch of one member, which is named by its id or by its name.

use std::{convert::Infallible, fmt::Display, io::Write, str::FromStr};

use amphora_model::{LoadBalancerId, MemberId, PoolId};
use serde_json::Value;

use super::{Outcome, resolve};
use crate::{
    client::Client,
    error::{Error, Result},
};

/// An object as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named<Id> {
    /// By its UUID.
    Id(Id),
    /// By anything else.
    Name(String),
}

impl<Id: FromStr> FromStr for Named<Id> {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id))
    }
}

/// Sets a member's weight or administrative state on every amphora.
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn member(
    out: &mut impl Write,
    clients: &[Client],
    id: Option<LoadBalancerId>,
    (pool, member): (&Named<PoolId>, &Named<MemberId>),
    weight: Option<u16>,
    admin_state_up: Option<bool>,
) -> Result<()> {
    let mut said = Vec::new();
    said.extend(weight.map(|w| format!("weight {w}{}", if w == 0 { " (draining)" } else { "" })));
    said.extend(admin_state_up.map(|up| format!("admin state {}", if up { "up" } else { "down" })));
    let said = said.join(", ");
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            let id = resolve(client, id).await?;
            let (pool, member) = find(client, id, pool, member).await?;
            client.set_member(id, pool, member, weight, admin_state_up).await?;
            Ok(writeln!(out, "{}: member {member} has {said}", client.endpoint())?)
        };
        outcome.note(result.await);
    }
    outcome.result()
}

/// The ids of what was named. With ids alone the amphora is not asked.
async fn find(
    client: &Client,
    id: LoadBalancerId,
    pool: &Named<PoolId>,
    member: &Named<MemberId>,
) -> Result<(PoolId, MemberId)> {
    if let (Named::Id(pool), Named::Id(member)) = (pool, member) {
        return Ok((*pool, *member));
    }
    let status = client.status(id).await?;
    let pools = status["statuses"]["loadbalancer"]["pools"].as_array().map_or(&[][..], Vec::as_slice);
    let amphora = client.endpoint();
    let pool = match pool {
        Named::Id(pool) => *pool,
        Named::Name(name) => the_one(amphora, "pool", name, pools)?,
    };
    let member = match member {
        Named::Id(member) => *member,
        Named::Name(name) => {
            let of_pool = pools.iter().find(|p| parsed(p) == Some(pool));
            let Some(of_pool) = of_pool else {
                return Err(unknown(amphora, format!("there is no pool {pool}"), pools));
            };
            let members = of_pool["members"].as_array().map_or(&[][..], Vec::as_slice);
            the_one(amphora, "member", name, members)?
        }
    };
    Ok((pool, member))
}

/// The id of the object with this name.
pub(super) fn the_one<Id: FromStr>(
    amphora: &impl Display,
    kind: &str,
    name: &str,
    objects: &[Value],
) -> Result<Id> {
    let so_named: Vec<&Value> = objects.iter().filter(|object| object["name"] == name).collect();
    match so_named.as_slice() {
        [] => Err(unknown(amphora, format!("there is no {kind} {name}"), objects)),
        [one] => parsed(one).ok_or_else(|| unknown(amphora, format!("{kind} {name} has no usable id"), &[])),
        several => {
            let list: String = several.iter().map(|object| format!("\n  {}", described(object))).collect();
            Err(Error::Usage(format!(
                "{amphora} has {} {kind}s named {name}; say which by id:{list}",
                several.len()
            )))
        }
    }
}

fn unknown(amphora: &impl Display, what: String, there_are: &[Value]) -> Error {
    let list: String = there_are.iter().map(|object| format!("\n  {}", described(object))).collect();
    let there_are = if list.is_empty() { String::new() } else { format!("; there are:{list}") };
    Error::Refused {
        amphora: amphora.to_string(),
        status: 404,
        message: what + &there_are,
        faults: Vec::new(),
    }
}

fn parsed<Id: FromStr>(object: &Value) -> Option<Id> {
    object["id"].as_str()?.parse().ok()
}

/// Id, name and address, as far as there are any.
fn described(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().filter(|text| !text.is_empty());
    let words = [text("id"), text("name"), text("address")];
    let mut line: Vec<String> = words.into_iter().flatten().map(str::to_owned).collect();
    if let (Some(address), Some(port)) = (text("address"), object["protocol_port"].as_u64()) {
        line.pop();
        line.push(if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        });
    }
    line.join(" ")
}
