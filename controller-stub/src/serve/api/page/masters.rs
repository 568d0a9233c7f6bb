//! Who is master at this moment. Rows say who is to be; who is, the two of a pair settle among themselves.

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::super::{
    fault::Fault,
    request::{Answer, Query},
};
use crate::serve::{
    amphora::{Agent, Driver},
    db::Db,
    policies::{Context, Rule},
};

/// Whether each amphora of a load balancer holds its addresses, as its agent says; `null` when that does not answer.
pub(in crate::serve::api) async fn masters(
    db: &Db,
    agents: Option<&Driver>,
    context: &Context,
    query: &Query,
) -> Result<Answer, Fault> {
    query.only(&["loadbalancer_id"])?;
    if !context.may(Rule::Admin, None) {
        return Err(Fault::forbidden());
    }
    let id = query.get("loadbalancer_id").unwrap_or_default().to_owned();
    let amphorae = db
        .read::<_, Fault, _>(move |t| {
            let mut query = t.prepare_cached(
                "SELECT id, lb_network_ip, agent_port FROM amphora WHERE load_balancer_id = ?1 AND status = 'ALLOCATED'",
            )?;
            let rows = query.query_map([id], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u16>(2)?))
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })
        .await?;
    let asked = amphorae.into_iter().map(|(id, address, port)| async move {
        let answer = match (agents, address.parse::<std::net::IpAddr>()) {
            (Some(agents), Ok(address)) => {
                agents.is_master(&Agent { id: id.clone(), address: (address, port).into() }).await
            }
            _ => None,
        };
        (id, Value::from(answer))
    });
    let told: Map<String, Value> = join_all(asked).await.into_iter().collect();
    Ok(Answer::new(200, json!({"masters": told})))
}
