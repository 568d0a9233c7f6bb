//! From the model to the snapshot.

use std::{collections::HashMap, sync::Arc};

use super::{AccessList, ListenerPlan, MemberPlan, PoolPlan, Snapshot};
use crate::{
    control::api::{Fault, Refusal},
    l7::{Budget, Expressions, L7Program},
    model::{Listener, LoadBalancer, Pool, PoolId, PoolProtocol},
    net::proxy_protocol::Version as ProxyVersion,
    persist::{PersistState, Persistence},
    state::{ListenerState, Registry},
};

/// Compiles a load balancer over the states that `registry` knows.
///
/// # Errors
/// What only compiling can find: regular expressions that cannot be honoured. All faults are reported together.
pub fn compile(model: Arc<LoadBalancer>, generation: u64, registry: &Registry) -> Result<Snapshot, Refusal> {
    let pools: Vec<PoolPlan> = model.pools.iter().map(|pool| compile_pool(pool, registry)).collect();
    let enabled: HashMap<PoolId, usize> = model
        .pools
        .iter()
        .enumerate()
        .filter(|(_, pool)| pool.admin_state_up)
        .map(|(index, pool)| (pool.id, index))
        .collect();
    let mut faults = Vec::new();
    let none = Expressions::default();
    let mut budget = Budget::new(&none);
    let mut listeners = Vec::new();
    let mut listener_states = Vec::with_capacity(model.listeners.len());
    for listener in &model.listeners {
        // Compiled also when it is disabled, so that enabling it later cannot fail.
        let state = registry.listener(listener.id);
        listener_states.push(Arc::clone(&state));
        match L7Program::compile(listener, |pool| enabled.contains_key(&pool), &mut budget) {
            Ok(l7) if model.admin_state_up && listener.admin_state_up => {
                listeners.push(compile_listener(listener, l7, &model, &enabled, state));
            }
            Ok(_) => {}
            Err(found) => faults.extend::<Vec<Fault>>(found),
        }
    }
    if faults.is_empty() {
        Ok(Snapshot {
            generation,
            model: Some(model),
            listeners,
            pools,
            listener_states,
            enabled_pools: enabled,
        })
    } else {
        Err(Refusal { faults })
    }
}

fn compile_listener(
    listener: &Listener,
    l7: L7Program,
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
        l7,
        insert_headers: listener.insert_headers,
        timeouts: listener.timeouts,
        access: AccessList::new(&listener.allowed_cidrs),
    }
}

fn compile_pool(pool: &Pool, registry: &Registry) -> PoolPlan {
    let state = registry.pool(pool.id);
    let members = pool
        .members
        .iter()
        .map(|member| MemberPlan {
            state: registry.member(&state, member.id, member.address, member.port),
            id_text: member.id.to_string().into(),
            weight: member.weight,
            backup: member.backup,
            admin_state_up: member.admin_state_up,
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
            PoolProtocol::Http | PoolProtocol::Https | PoolProtocol::Tcp => None,
        },
        members,
        state,
    }
}
