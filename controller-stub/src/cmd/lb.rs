//! `apply`, `delete`, `status`.

use std::{fmt, io::Write, path::PathBuf};

use amphora_ipc::proxy::{Peers, PeersState};
use amphora_ipc::vrrp::Status as VrrpStatus;
use amphora_model::LoadBalancerId;
use serde_json::{Value, json};

use super::{Outcome, complain, resolve};
use crate::{
    client::Client,
    diff::{Change, diff},
    document::Document,
    error::{Error, Result},
    judge::Judged,
    peers_view, remarks,
    style::{Colour, Style},
    tree, vrrp_view,
};

/// Judging a document and comparing it with what is there, and nothing more.
#[derive(Debug)]
pub(crate) struct DryRun {
    /// The amphora-proxy that judges; the one beside this program if absent.
    pub(crate) proxy: Option<PathBuf>,
}

/// Brings the document to every amphora in turn and tells what changed there, or in a dry run, what would. A dry run without
/// amphorae judges alone.
///
/// # Errors
/// The first one. A document that one amphora refuses goes to none after it; one that cannot be reached does not
/// keep the other from its configuration.
pub(crate) async fn apply(
    out: &mut impl Write,
    style: Style,
    clients: &[Client],
    document: &Document,
    dry_run: Option<DryRun>,
) -> Result<()> {
    let is_dry = dry_run.is_some();
    if let Some(DryRun { proxy }) = dry_run
        && let Judged::Fields(missing) = document.judge(proxy).await?
    {
        complain(format_args!(
            "warning: what L7 policies compare, regular expressions above all, was not judged: {} is not there; \
             name amphora-proxy with --proxy",
            missing.display()
        ));
    }
    if is_dry && clients.is_empty() {
        writeln!(out, "the document can be honoured; without --amphora nothing is compared")?;
    }
    let mut outcome = Outcome::default();
    for client in clients {
        let result = apply_to(out, style, client, document, is_dry).await;
        let refused = matches!(result, Err(Error::Refused { .. }));
        outcome.note(result);
        if refused {
            break;
        }
    }
    outcome.result()
}

async fn apply_to(
    out: &mut impl Write,
    style: Style,
    client: &Client,
    document: &Document,
    dry_run: bool,
) -> Result<()> {
    let before = client.get(document.id).await?;
    // What the amphora says before and after is compared, so that a default it fills in is no difference.
    let mut told = Vec::new();
    let after = if dry_run {
        Some(document.body.clone())
    } else {
        let applied = client.put(document.id, &document.body).await?;
        told.extend(remarks::of(&applied));
        client.get(document.id).await?
    };
    let changes = diff(before.as_ref(), after.as_ref());
    let verb = if dry_run { "would change" } else { "changed" };
    match changes.len() {
        0 => writeln!(out, "{}: nothing {verb}", client.endpoint())?,
        1 => writeln!(out, "{}: 1 thing {verb}", client.endpoint())?,
        n => writeln!(out, "{}: {n} things {verb}", client.endpoint())?,
    }
    for change in changes {
        let colour = match change {
            Change::Added(_) => Colour::Green,
            Change::Removed(_) => Colour::Red,
            Change::Set { .. } => Colour::Yellow,
        };
        writeln!(out, "  {}", style.paint(colour, change))?;
    }
    for remark in told {
        complain(format_args!("{}: {remark}", client.endpoint()));
    }
    Ok(())
}

/// Removes the load balancer from every amphora.
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn delete(
    out: &mut impl Write,
    clients: &[Client],
    id: Option<LoadBalancerId>,
) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            let id = resolve(client, id).await?;
            client.delete(id).await?;
            Ok(writeln!(out, "{}: load balancer {id} removed", client.endpoint())?)
        };
        outcome.note(result.await);
    }
    outcome.result()
}

/// Shows the status tree of every amphora, its VRRP and its link to the other one, as a tree or as JSON (one document per amphora).
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn status(
    out: &mut impl Write,
    style: Style,
    clients: &[Client],
    id: Option<LoadBalancerId>,
    json: bool,
) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            let id = resolve(client, id).await?;
            let mut status = client.status(id).await?;
            let vrrp = client.vrrp_status().await;
            let peers = client.peers().await;
            if json {
                if let Some(status) = status.as_object_mut() {
                    let vrrp = vrrp.as_ref().ok().and_then(Option::as_ref);
                    status.extend(vrrp.map(|vrrp| ("vrrp".to_owned(), json!(vrrp))));
                    let peers = peers.as_ref().ok().and_then(Option::as_ref);
                    status.extend(peers.map(|peers| ("peers".to_owned(), json!(peers))));
                }
                writeln!(out, "{status:#}")?;
                return vrrp.map(drop).and(peers.map(drop));
            }
            if clients.len() > 1 {
                writeln!(out, "{}", style.paint(Colour::Dim, client.endpoint()))?;
            }
            let mut text = String::new();
            draw(&mut text, &status, &vrrp, &peers, style).map_err(|e| Error::local("status", e))?;
            out.write_all(text.as_bytes())?;
            vrrp.map(drop).and(peers.map(drop))
        };
        outcome.note(result.await);
    }
    outcome.result()
}

fn draw(
    text: &mut String,
    status: &Value,
    vrrp: &Result<Option<VrrpStatus>>,
    peers: &Result<Option<Peers>>,
    style: Style,
) -> fmt::Result {
    tree::draw(text, status, style)?;
    if let Ok(Some(vrrp)) = vrrp {
        vrrp_view::draw(text, vrrp, style)?;
    }
    match peers {
        // An amphora alone has nobody to keep anything alike with.
        Ok(Some(peers)) if peers.state != PeersState::Off || matches!(vrrp, Ok(Some(_))) => {
            peers_view::draw(text, peers, style)
        }
        _ => Ok(()),
    }
}
