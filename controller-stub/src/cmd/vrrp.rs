//! `vrrp`: configurations of one amphora or a pair, what an amphora is told to do, and the planned failover.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use amphora_agent::{vrrp::Role, vrrp_client::VrrpAction};
use amphora_ipc::vrrp::{InstanceStatus, Status};
use tokio::time::sleep;

use super::{
    Outcome,
    peers::{self, Plan},
};
use crate::{
    client::Client,
    error::{Error, Result},
    vrrp_document::VrrpDocument,
};

/// How often the successor is asked whether it is master.
const POLL: Duration = Duration::from_millis(10);

/// Brings a configuration to every amphora.
///
/// # Errors
/// The first one; see [`apply_each`].
pub(crate) async fn apply(out: &mut impl Write, clients: &[Client], document: &VrrpDocument) -> Result<()> {
    apply_each(out, clients.iter().map(|client| (client, document))).await
}

/// Brings each amphora of a pair its own of a document, and then tells the proxies of each other.
///
/// # Errors
/// The first one; see [`apply_each`] and [`peers::pair`]. Without both of the first there is nothing of the second.
pub(crate) async fn pair(
    out: &mut impl Write,
    clients: &[Client],
    pair: &[VrrpDocument; 2],
    plan: Plan,
) -> Result<()> {
    let [first, second] = two(clients)?;
    apply_each(out, [(first, &pair[0]), (second, &pair[1])].into_iter()).await?;
    peers::pair(out, [first, second], plan).await
}

/// A configuration that one amphora refuses goes to none after it; one that cannot be reached does not keep the other
/// from its own.
async fn apply_each<'a>(
    out: &mut impl Write,
    each: impl Iterator<Item = (&'a Client, &'a VrrpDocument)>,
) -> Result<()> {
    let mut outcome = Outcome::default();
    for (client, document) in each {
        let result = async {
            let changed = client.put_vrrp(document).await?;
            let word = if changed { "changed" } else { "nothing changed" };
            Ok(writeln!(out, "{}: {word}", client.endpoint())?)
        };
        let result = result.await;
        let refused = matches!(result, Err(Error::Refused { .. }));
        outcome.note(result);
        if refused {
            break;
        }
    }
    outcome.result()
}

/// Removes the configuration from every amphora, and the other one of the pair.
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn delete(out: &mut impl Write, clients: &[Client]) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            client.delete_vrrp().await?;
            Ok(writeln!(out, "{}: VRRP removed", client.endpoint())?)
        };
        let result = result.await;
        let silent = matches!(result, Err(Error::Unreachable { .. }));
        outcome.note(result);
        if !silent {
            outcome.note(peers::delete(out, client).await);
        }
    }
    outcome.result()
}

/// Tells every amphora what to do.
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn act(out: &mut impl Write, clients: &[Client], action: VrrpAction) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            let status = client.act(action).await?;
            Ok(writeln!(out, "{}: {}", client.endpoint(), states(&status))?)
        };
        outcome.note(result.await);
    }
    outcome.result()
}

/// Lets the master of a pair hand over to the other, and waits until that is master.
///
/// # Errors
/// [`Error::NotDone`] when there is nobody to hand over, nobody to take over, or it is not done within `patience`.
pub(crate) async fn failover(out: &mut impl Write, clients: &[Client], patience: Duration) -> Result<()> {
    let [first, second] = two(clients)?;
    let statuses = (status(first).await?, status(second).await?);
    let (from, to, before, peer) = match (is_master(&statuses.0), is_master(&statuses.1)) {
        (true, false) => (first, second, statuses.0, statuses.1),
        (false, true) => (second, first, statuses.1, statuses.0),
        (both, _) => {
            let each =
                if both { "each of the two is master of something" } else { "none of the two is master" };
            return Err(Error::NotDone(format!(
                "{each}: {} {}, {} {}",
                first.endpoint(),
                states(&statuses.0),
                second.endpoint(),
                states(&statuses.1)
            )));
        }
    };
    let moving: Vec<&str> = masters(&before).map(|instance| instance.name.as_str()).collect();
    for name in &moving {
        let reason = match peer.instances.iter().find(|instance| instance.name == **name) {
            None => "it has no such virtual router".to_owned(),
            Some(_) if !peer.started => "it is stopped".to_owned(),
            Some(instance) if !instance.fit => "it is not fit".to_owned(),
            Some(instance) if instance.state != "BACKUP" => format!("it is {}", instance.state),
            Some(_) => continue,
        };
        return Err(Error::NotDone(format!("{} cannot take over {name}: {reason}", to.endpoint())));
    }
    let start = Instant::now();
    from.act(VrrpAction::HandOver).await?;
    let taken = loop {
        let looked = status(to).await;
        let elapsed = start.elapsed();
        if let Some(since) = looked.as_ref().ok().and_then(|status| all_master_since(status, &moving)) {
            break elapsed.saturating_sub(since);
        }
        if elapsed >= patience {
            // One that cannot be reached for a moment is asked again; at the end that is the reason.
            let after = looked?;
            let patience = patience.as_secs_f32();
            let (to, from) = (to.endpoint(), from.endpoint());
            return Err(Error::NotDone(format!(
                "{to} did not take over within {patience} s: it is {}; {from} stays master when it hears no successor",
                states(&after)
            )));
        }
        sleep(POLL).await;
    };
    let names = moving.join(", ");
    writeln!(out, "{names}: {} -> {} in {} ms", from.endpoint(), to.endpoint(), taken.as_millis())?;
    writeln!(out, "{} does not take it back by priority until `vrrp resume`", from.endpoint())?;
    Ok(())
}

async fn status(client: &Client) -> Result<Status> {
    client.vrrp_status().await?.ok_or_else(|| Error::Refused {
        amphora: client.endpoint().to_string(),
        status: 404,
        message: "it has no VRRP configuration".to_owned(),
        faults: Vec::new(),
    })
}

fn masters(status: &Status) -> impl Iterator<Item = &InstanceStatus> {
    status.instances.iter().filter(|instance| instance.state == "MASTER")
}

fn is_master(status: &Status) -> bool {
    masters(status).next().is_some()
}

/// For how long every one of these has been master.
fn all_master_since(status: &Status, names: &[&str]) -> Option<Duration> {
    let since = names.iter().map(|name| {
        masters(status).find(|instance| instance.name == *name).map(|instance| instance.since_ms)
    });
    since.collect::<Option<Vec<_>>>()?.into_iter().min().map(Duration::from_millis)
}

/// One word where it is one for all, else each with its name.
fn states(status: &Status) -> String {
    match Role::of(status) {
        None => "without a virtual router".to_owned(),
        Some(Role::Mixed) => {
            let each =
                status.instances.iter().map(|instance| format!("{} {}", instance.name, instance.state));
            each.collect::<Vec<_>>().join(", ")
        }
        Some(_) => status.instances[0].state.clone(),
    }
}

fn two(clients: &[Client]) -> Result<[&Client; 2]> {
    match clients {
        [first, second] => Ok([first, second]),
        _ => Err(Error::Usage(format!("a pair is two amphorae; {} given", clients.len()))),
    }
}
