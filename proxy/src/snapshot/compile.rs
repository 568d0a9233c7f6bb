//! From the model to the snapshot.

use std::{collections::HashMap, sync::Arc};

use amphora_ipc::proxy::{Fault, Refusal};
use amphora_model::{Listener, ListenerId, LoadBalancer, Member, Pool, PoolId, PoolProtocol};

use super::{AccessList, ListenerPlan, MemberPlan, PoolPlan, Snapshot, Splits, TlsSource, tls::Maker};
use crate::{
    conn::proxy_protocol::Version as ProxyVersion,
    http::Identification,
    l7::{Budget, L7Program},
    limits::rate::{Kept, RateLimits},
    logs::{Frontend, LogPlan, Protocol},
    persist::{PersistState, Persistence},
    state::{ListenerState, Registry},
    tls::{ClientContext, ServerContext},
};

/// Compiles a load balancer over the states that `registry` knows, without anything to begin from.
///
/// # Errors
/// See [`compile_after`].
pub fn compile(
    model: Arc<LoadBalancer>,
    generation: u64,
    registry: &Registry,
    source: &TlsSource,
) -> Result<Snapshot, Refusal> {
    compile_after(model, &Snapshot::empty(generation.saturating_sub(1)), registry, source)
}

/// Compiles the load balancer that follows `before`, over the states that `registry` knows from it. What is equal in both
/// keeps its plan: a change costs what it changes.
///
/// # Errors
/// What only compiling can find: regular expressions that cannot be honoured, or that take too much all together, formats
/// of flow logs, certificates that are not there or no good. All faults are reported together.
pub fn compile_after(
    model: Arc<LoadBalancer>,
    before: &Snapshot,
    registry: &Registry,
    source: &TlsSource,
) -> Result<Snapshot, Refusal> {
    let known = Known::of(before);
    let mut faults = Vec::new();
    let mut tls = Maker::new(source, &before.contexts);
    let mut pools = Vec::with_capacity(model.pools.len());
    for pool in &model.pools {
        let context = tls.pool(pool).unwrap_or_else(|found| {
            faults.extend(found);
            None
        });
        pools.push(known.pool(pool, context, registry));
    }
    let enabled: HashMap<PoolId, usize> = model
        .pools
        .iter()
        .enumerate()
        .filter(|(_, pool)| pool.admin_state_up)
        .map(|(index, pool)| (pool.id, index))
        .collect();
    let mut budget = Budget::new(&before.expressions);
    let mut limits = Kept::after(&before.limits);
    let workers = registry.workers();
    let mut listeners = Vec::new();
    let same_ground =
        before.model.as_ref().is_some_and(|old| old.vips == model.vips) && before.enabled_pools == enabled;
    let mut listener_states = Vec::with_capacity(model.listeners.len());
    for listener in &model.listeners {
        let context = tls.listener(listener).unwrap_or_else(|found| {
            faults.extend(found);
            None
        });
        let active = model.admin_state_up && listener.admin_state_up;
        if active
            && same_ground
            && let Some(plan) = known.listener(listener)
            && same(&plan.tls, &context)
        {
            budget.keep(listener, |pool| enabled.contains_key(&pool));
            limits.keep(plan.limits.as_deref(), listener, workers);
            listener_states.push(Arc::clone(&plan.state));
            listeners.push(Arc::clone(plan));
            continue;
        }
        // Compiled also when it is disabled, so that enabling it later cannot fail.
        let state = registry.listener(listener.id);
        listener_states.push(Arc::clone(&state));
        let log = compile_log(listener);
        let limited = RateLimits::compile(listener, known.limits(listener.id), &mut limits, workers);
        match (L7Program::compile(listener, |pool| enabled.contains_key(&pool), &mut budget), log) {
            (Ok(l7), Ok(log)) if active => {
                let before = known.splits(listener.id);
                let splits = Splits::compile(listener, &enabled, registry.workers(), before);
                let mut plan = compile_listener(listener, l7, splits, context, log, &model, &enabled, state);
                plan.limits = limited.map(Arc::new);
                listeners.push(Arc::new(plan));
            }
            (l7, log) => {
                faults.extend::<Vec<Fault>>(l7.err().unwrap_or_default());
                faults.extend(log.err());
            }
        }
    }
    if faults.is_empty() {
        let (contexts, remarks) = tls.into_contexts();
        Ok(Snapshot {
            generation: before.generation + 1,
            model: Some(model),
            listeners,
            pools,
            listener_states,
            enabled_pools: enabled,
            expressions: budget.into_expressions(),
            contexts,
            remarks,
            limits: limits.into_kept(),
        })
    } else {
        Err(Refusal { faults })
    }
}

/// What runs, to be taken over where it is equal.
struct Known<'a> {
    pools: HashMap<PoolId, (&'a Pool, &'a Arc<PoolPlan>)>,
    listeners: HashMap<ListenerId, (&'a Listener, &'a Arc<ListenerPlan>)>,
}

impl<'a> Known<'a> {
    fn of(before: &'a Snapshot) -> Self {
        let Some(model) = &before.model else {
            return Self { pools: HashMap::new(), listeners: HashMap::new() };
        };
        let plans: HashMap<_, _> = before.listeners.iter().map(|plan| (plan.state.id, plan)).collect();
        let bound = |listener: &'a Listener| Some((listener.id, (listener, *plans.get(&listener.id)?)));
        Self {
            pools: model
                .pools
                .iter()
                .zip(&before.pools)
                .map(|(pool, plan)| (pool.id, (pool, plan)))
                .collect(),
            listeners: model.listeners.iter().filter_map(bound).collect(),
        }
    }

    /// The plan of a listener that has not changed.
    fn listener(&self, listener: &Listener) -> Option<&'a Arc<ListenerPlan>> {
        self.listeners.get(&listener.id).filter(|(old, _)| *old == listener).map(|(_, plan)| *plan)
    }

    fn limits(&self, listener: ListenerId) -> Option<&'a RateLimits> {
        self.listeners.get(&listener).and_then(|(_, plan)| plan.limits.as_deref())
    }

    fn splits(&self, listener: ListenerId) -> Option<&'a Splits> {
        self.listeners.get(&listener).and_then(|(_, plan)| plan.splits.as_deref())
    }

    fn pool(&self, pool: &Pool, tls: Option<Arc<ClientContext>>, registry: &Registry) -> Arc<PoolPlan> {
        match self.pools.get(&pool.id) {
            Some((old, plan)) if *old == pool && same(&plan.tls, &tls) => Arc::clone(plan),
            found => Arc::new(compile_pool(
                pool,
                tls,
                registry,
                found.map_or((&[][..], &[][..]), |(old, plan)| (&old.members[..], &plan.members[..])),
            )),
        }
    }
}

/// Whether these are the same object.
fn same<T>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

#[allow(clippy::too_many_arguments, reason = "its parts, each made by somebody else")]
fn compile_listener(
    listener: &Listener,
    l7: L7Program,
    splits: Option<Box<Splits>>,
    tls: Option<Arc<ServerContext>>,
    log: Option<Arc<LogPlan>>,
    model: &LoadBalancer,
    enabled: &HashMap<PoolId, usize>,
    state: Arc<ListenerState>,
) -> ListenerPlan {
    ListenerPlan {
        state,
        protocol: listener.protocol,
        bindings: model.vips.iter().map(|vip| listener.binding(vip.address)).collect(),
        port_text: listener.port.to_string().into(),
        connection_limit: listener.connection_limit,
        default_pool: listener.default_pool.and_then(|pool| enabled.get(&pool).copied()),
        splits,
        l7,
        identification: Identification::new(&listener.routing),
        insert_headers: listener.insert_headers,
        timeouts: listener.timeouts,
        access: AccessList::new(&listener.allowed_cidrs),
        log,
        tls,
        hsts: listener.tls.as_ref().and_then(|tls| tls.hsts).map(|hsts| hsts.to_string().into()),
        limits: None,
    }
}

fn compile_log(listener: &Listener) -> Result<Option<Arc<LogPlan>>, Fault> {
    let Some(log) = &listener.flow_log else { return Ok(None) };
    let protocol = if listener.protocol.is_http() { Protocol::Http } else { Protocol::Tcp };
    let frontend = Frontend::new(listener.id, protocol, listener.tls.is_some());
    let plan = LogPlan::new(&log.format, log.facility, frontend);
    plan.map(|plan| Some(Arc::new(plan))).map_err(|error| Fault {
        path: format!("loadbalancer.listeners[{}].amphora.user_log_format", listener.id),
        reason: error.to_string(),
    })
}

/// `before` are the pool's members so far and their plans: documents keep their order, so that one that stays is mostly the
/// next there. What they are is compared in the documents, where they stand side by side; their states lie all over memory.
fn compile_pool(
    pool: &Pool,
    tls: Option<Arc<ClientContext>>,
    registry: &Registry,
    (members, plans): (&[Member], &[MemberPlan]),
) -> PoolPlan {
    let state = registry.pool(pool.id);
    let mut before = members.iter().zip(plans).peekable();
    let members = pool
        .members
        .iter()
        .map(|member| {
            let is_next = |(old, _): &(&Member, &MemberPlan)| old.id == member.id;
            let mut ahead = before.clone();
            let mut known = before.next_if(is_next);
            if known.is_none() {
                // The one before it in the old order may have gone.
                ahead.next();
                known = ahead.next_if(is_next);
                if known.is_some() {
                    before = ahead;
                }
            }
            let state = match known {
                Some((old, plan)) if (old.address, old.port) == (member.address, member.port) => {
                    Arc::clone(&plan.state)
                }
                _ => registry.member(&state, member.id, member.address, member.port),
            };
            MemberPlan {
                state,
                weight: member.weight,
                backup: member.backup,
                admin_state_up: member.admin_state_up,
            }
        })
        .collect();
    let persist_state =
        PersistState::carry_over(registry.persistence(pool.id), pool.id, pool.session_persistence.as_ref());
    PoolPlan {
        algorithm: pool.lb_algorithm,
        persistence: Persistence::compile(pool, persist_state.as_ref()),
        persist_state,
        proxy_protocol: match pool.protocol {
            PoolProtocol::Proxy => Some(ProxyVersion::V1),
            PoolProtocol::ProxyV2 => Some(ProxyVersion::V2),
            PoolProtocol::Http
            | PoolProtocol::Https
            | PoolProtocol::Tcp
            | PoolProtocol::Udp
            | PoolProtocol::Sctp => None,
        },
        speaks_http: pool.protocol == PoolProtocol::Http,
        members,
        state,
        tls,
        member_options: pool.member_options,
    }
}
