//! What a change is made of: what is wanted, the steps to it that touch nothing that runs, and why it did not come about.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use amphora_ipc::proxy::{Fault, Refusal};
use amphora_model::{Binding, LoadBalancer, Pool};
use bytes::Bytes;

use crate::{
    health::Target,
    limits::Bounds,
    net::{self, BindError, BoundListener, NewListener},
    snapshot::{self, ListenerPlan, Snapshot, TlsSource},
    state::Registry,
};

/// What is to run.
#[derive(Debug)]
pub enum Wanted {
    /// What this document says.
    Document(Bytes),
    /// This load balancer.
    Model(Box<LoadBalancer>),
    /// Nothing.
    Nothing,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum ApplyError {
    /// The document cannot be honoured; nothing changed.
    Refused(Refusal),
    /// Another process holds an address, or the system is out of resources; nothing changed.
    Unavailable(Refusal),
    /// The process ends, or is at fault itself; nothing changed.
    Failed(Refusal),
}

impl ApplyError {
    /// The faults.
    pub fn refusal(&self) -> &Refusal {
        match self {
            Self::Refused(refusal) | Self::Unavailable(refusal) | Self::Failed(refusal) => refusal,
        }
    }

    pub(super) fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) | Self::Unavailable(refusal) | Self::Failed(refusal) => refusal,
        }
    }

    pub(super) fn stopping() -> Self {
        Self::Failed(Refusal::one("", "the proxy is about to end"))
    }
}

/// Parses and compiles, for as long as that takes: for a blocking thread. `None` when that is what runs already.
///
/// # Errors
/// When it cannot be honoured, whatever the system's state.
pub(super) fn compile(
    wanted: Wanted,
    present: &Snapshot,
    registry: &Registry,
    tls: &TlsSource,
) -> Result<Option<Snapshot>, ApplyError> {
    let model = match wanted {
        Wanted::Document(text) => Some(LoadBalancer::from_json(&text).map_err(ApplyError::Refused)?),
        Wanted::Model(model) => Some(*model),
        Wanted::Nothing => None,
    };
    // The same document is another change where certificates that it names are others.
    let same = present.model.as_deref() == model.as_ref();
    if same && !model.as_ref().is_some_and(has_tls) {
        return Ok(None);
    }
    let Some(model) = model else { return Ok(Some(Snapshot::empty(present.generation + 1))) };
    let faults = unsupported_monitors(&model);
    if !faults.is_empty() {
        return Err(ApplyError::Refused(Refusal { faults }));
    }
    let compiled = snapshot::compile_after(Arc::new(model), present, registry, tls);
    let snapshot = compiled.map_err(ApplyError::Refused)?;
    Ok((!same || !snapshot.is_same(present)).then_some(snapshot))
}

fn has_tls(model: &LoadBalancer) -> bool {
    model.listeners.iter().any(|listener| listener.tls.is_some())
        || model.pools.iter().any(|pool| pool.tls.is_some())
}

/// A socket per worker for each address that is not among `bound`, if there may be so many. Sockets that were bound are closed again when one
/// cannot be. On addresses of `released` clients are not let in yet: workers may still have their old sockets there, and
/// go on with these.
///
/// # Errors
/// When another process holds an address, or the system is out of resources.
pub(super) fn bind_new(
    snapshot: &Snapshot,
    bound: &[Binding],
    released: &[(Binding, Instant)],
    bounds: &Bounds,
) -> Result<BTreeMap<Binding, Vec<NewListener>>, Refusal> {
    let mut new = Vec::new();
    let mut faults = Vec::new();
    let (workers, addresses) = (bounds.workers, bounds.sockets / bounds.workers);
    if let Some((_, beyond)) = snapshot.bindings().nth(addresses) {
        let reason = format!(
            "the limit of open descriptors (RLIMIT_NOFILE) has room for {addresses} listening addresses with {workers} workers"
        );
        return Err(Refusal::one(port_of(snapshot, beyond), reason));
    }
    for (binding, index) in snapshot.bindings() {
        if bound.contains(&binding) {
            continue;
        }
        match net::bind_for_workers(binding.address, workers) {
            Ok(sockets) => new.push((binding, index, sockets)),
            Err(error) => faults.push(bind_fault(snapshot, index, &error)),
        }
    }
    if !faults.is_empty() {
        return Err(Refusal { faults });
    }
    // Only now that every address is ours may clients connect.
    let mut sockets = BTreeMap::new();
    for (binding, index, bound) in new {
        let held = released.iter().any(|(released, _)| *released == binding);
        let listen = |socket: BoundListener| match held {
            true => Ok(NewListener::Bound(socket)),
            false => socket.listen().map(NewListener::Listening),
        };
        let listening: Result<Vec<_>, _> = bound.into_iter().map(listen).collect();
        match listening {
            Ok(listening) => {
                sockets.insert(binding, listening);
            }
            Err(error) => faults.push(bind_fault(snapshot, index, &error)),
        }
    }
    if faults.is_empty() { Ok(sockets) } else { Err(Refusal { faults }) }
}

/// Faults of health monitors that this process cannot carry out.
fn unsupported_monitors(model: &LoadBalancer) -> Vec<Fault> {
    let fault = |pool: &Pool| {
        let target = pool.members.iter().find_map(|member| Target::of_member(pool, member, None))?;
        let reason = target.unsupported()?;
        Some(Fault { path: format!("loadbalancer.pools[{}].healthmonitor.type", pool.id), reason })
    };
    model.pools.iter().filter_map(fault).collect()
}

fn bind_fault(snapshot: &Snapshot, index: usize, error: &BindError) -> Fault {
    Fault { path: port_of(snapshot, index), reason: error.to_string() }
}

/// The path of what a listener is bound to.
fn port_of(snapshot: &Snapshot, index: usize) -> String {
    format!("loadbalancer.listeners[{}].protocol_port", snapshot.listeners[index].state.id)
}

/// Refuses pools whose members are to be connected to from the addresses of clients, where the process may not.
pub(super) fn may_be_transparent(snapshot: &Snapshot) -> Result<(), ApplyError> {
    let faults = transparent(snapshot, "takes CAP_NET_RAW, which the proxy was started without");
    if faults.is_empty() || net::may_be_transparent() {
        return Ok(());
    }
    Err(ApplyError::Unavailable(Refusal { faults }))
}

fn transparent(snapshot: &Snapshot, reason: &str) -> Vec<Fault> {
    let pools = snapshot.pools.iter().filter(|pool| pool.member_options.transparent);
    pools
        .map(|pool| Fault {
            path: format!("loadbalancer.pools[{}].amphora.transparent_client_address", pool.id()),
            reason: reason.to_owned(),
        })
        .collect()
}

/// That the kernel does not forward the datagrams of a snapshot, or have what members answer to clients end here.
pub(super) fn not_forwarded(snapshot: &Snapshot, reason: &str) -> ApplyError {
    let listeners = snapshot.listeners.iter().filter(|plan| plan.protocol.is_forwarded());
    let fault = |plan: &Arc<ListenerPlan>| Fault {
        path: format!("loadbalancer.listeners[{}].protocol", plan.state.id),
        reason: reason.to_owned(),
    };
    let mut faults: Vec<_> = listeners.map(fault).collect();
    faults.extend(transparent(snapshot, reason));
    ApplyError::Unavailable(match faults.is_empty() {
        true => Refusal::one("", reason),
        false => Refusal { faults },
    })
}
