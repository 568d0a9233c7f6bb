//! TCP and HTTPS listeners: a member for each connection, and bytes both ways.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc};

use tokio::time::Instant;

use super::{
    log::Logged,
    member::{self, Begun, Carrier, Connected, Effort, NoMember, Reuse, Route, Wanted},
    relay::{self, RelayOptions},
};
use crate::{
    balance::Flow,
    conn::{BUFFER_SIZE, Buffer, Conn},
    local::{Charging, LocalListener, Worker},
    logs::{
        Record,
        termination::{Cause, Phase},
    },
    persist::Persistence,
};

/// What is read of a client that nobody serves, at most; HAProxy has read as much.
const UNHEARD: usize = BUFFER_SIZE;

/// Serves a client until its connection ends. Without a member the client is closed at once, as HAProxy does.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: Conn,
    client: SocketAddr,
) {
    let begun = Instant::now();
    let mut log = Logged::begin(worker, &listener, &stream, client, begun);
    let state = Arc::clone(listener.state());
    carry(worker, listener, stream, client, begun, log.as_deref_mut().map(|log| &mut log.record)).await;
    if let Some(mut log) = log {
        log.write(worker, &state);
    }
}

async fn carry(
    worker: &Rc<Worker>,
    listener: Rc<LocalListener>,
    mut stream: Conn,
    client: SocketAddr,
    begun: Instant,
    mut record: Option<&mut Record>,
) {
    let (state, timeouts) = (Arc::clone(listener.state()), listener.timeouts());
    let charging = Charging::new(worker, &listener, client.ip(), None);
    let counters = state.counters.of(worker.index);
    let pool = {
        let present = listener.present();
        present.default_pool(worker.index, std::iter::empty()).map(|chosen| present.pool(chosen.pool))
    };
    // The session may last for days and changes pass it by: it holds what it uses, and no configuration.
    drop(listener);
    let Some(pool) = pool else {
        let unheard = stream.discard(UNHEARD);
        if let Some(record) = record {
            record.bytes_in += unheard as u64;
            record.unconnected(Effort::default());
        }
        return;
    };
    let pool_plan = &*pool.plan;
    pool_plan.state.counters.of(worker.index).sessions_total.add(1);
    let now = worker.seconds(begun);
    let stick = match &pool_plan.persistence {
        Some(Persistence::Source(stick)) => Some((stick, stick.state().source_key(client.ip()))),
        _ => None,
    };
    let persistent = stick.and_then(|(stick, key)| stick.find(key, pool_plan, now));
    // What has come with the connection goes with the one to the member. One that has failed has nobody to be carried for.
    let (from_client, has_failed) = match stream.take_early(&worker.pools.buffers) {
        Ok(early) => (early, false),
        Err(_) => (None, true),
    };
    let early = from_client.as_ref().map_or(0, Buffer::len);
    counters.bytes_in.add(early as u64);
    let route = Route {
        pool: &pool,
        timeout: timeouts.member_connect,
        flow: Flow { source: client.ip(), source_port: client.port() },
        persistent,
        again: None,
        avoid: None,
        now,
        worker: worker.index,
        header: member::header(pool_plan, client, || stream.local_addr(), None),
        facts: None,
        buffers: &worker.pools.buffers,
        wanted: Wanted::Bytes,
        speaks_first: from_client.is_some(),
        effort: Cell::default(),
    };
    let connected = tokio::select! {
        biased;
        // A client that has reset its connection waits for nobody. One that has only finished sending does.
        () = std::future::ready(()), if has_failed => None,
        connected = connect(&route) => Some(connected),
        () = stream.failed() => None,
    };
    if let Some(record) = &mut record {
        record.marks.requested = Some(begun);
        record.routed(&route, begun);
        match &connected {
            Some(Ok(connected)) => {
                record.connected(|| connected.carrier.local_addr(), connected.opened.unwrap_or(begun));
            }
            Some(Err(NoMember)) => record.unconnected(route.effort.get()),
            None => record.termination.set(Cause::ClientGone, Phase::Connect),
        }
    }
    if connected.is_none() {
        route.abandoned();
    }
    // What is not HTTP gets a connection of its own.
    let Some(Ok(Connected { slot, member, carrier: Carrier::Conn(mut conn), opened, .. })) = connected else {
        let unheard = early + stream.discard(UNHEARD - early);
        if let Some(record) = record {
            record.bytes_in += unheard as u64;
        }
        return;
    };
    let at = Rc::clone(slot.member());
    at.state.passed(&pool_plan.member_options);
    let member_counters = at.counters();
    if let Some((stick, key)) = stick {
        stick.store(key, member, now);
    }
    // Nobody else is tried any more.
    drop(route);
    drop(pool);
    let options = RelayOptions {
        client_timeout: timeouts.client_data,
        member_timeout: timeouts.member_data,
        from_client,
        from_member: None,
        charging: Some(charging),
        drain: Some(at.watch_drain()),
    };
    let end = relay::relay(&mut stream, &mut conn, options, &worker.pools, counters, member_counters).await;
    let total = begun.elapsed().as_micros() as u64;
    member_counters.total_time_us.add(total);
    let opened = opened.unwrap_or(begun);
    member_counters.times.add(opened.duration_since(begun).as_micros() as u64, 0, total);
    if let Some(record) = record {
        record.relayed(&end);
    }
}

async fn connect(route: &Route<'_>) -> Result<Connected, NoMember> {
    match route.begin(Reuse::Never)? {
        Begun::Connected(connected) => Ok(connected),
        Begun::Chosen(chosen) => route.open(chosen, Reuse::Never).await,
    }
}
