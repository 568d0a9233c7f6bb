//! What objects counted that are gone, so that the sum over a pool or over the process never goes back.

use std::sync::Arc;

use super::{
    Counter, HandshakeCounters, Http2Counters, ListenerCounters, ListenerState, MemberCounters, PerWorker,
    PoolCounters, PoolState,
};

/// Counters that can be added up.
pub trait Absorb: Default {
    /// Adds what another has counted. Gauges and high-water marks are not counts, and are left out.
    fn absorb(&self, other: &Self);
}

/// An object with counters.
pub trait Counted {
    /// What one worker counts for it.
    type Counters: Absorb;
    /// All that is counted for it.
    fn counters(&self) -> &PerWorker<Self::Counters>;
}

/// The counters of objects that were deleted. Sessions that are under way at one go on counting there until they end.
#[derive(Debug)]
pub struct Departed<T: Counted> {
    total: T::Counters,
    leaving: Vec<Arc<T>>,
}

impl<T: Counted> Default for Departed<T> {
    fn default() -> Self {
        Self { total: T::Counters::default(), leaving: Vec::new() }
    }
}

impl<T: Counted> Departed<T> {
    /// Takes in an object that was deleted.
    pub fn add(&mut self, object: Arc<T>) {
        let total = &self.total;
        // Those that nobody else holds any more are done counting.
        self.leaving.retain(|gone| {
            let done = Arc::strong_count(gone) == 1;
            if done {
                absorb(total, gone);
            }
            !done
        });
        self.leaving.push(object);
    }

    /// What they have counted all together, in one cell.
    pub fn sum(&self) -> PerWorker<T::Counters> {
        let sum = PerWorker::<T::Counters>::new(1);
        sum.of(0).absorb(&self.total);
        for object in &self.leaving {
            absorb(sum.of(0), object);
        }
        sum
    }
}

fn absorb<T: Counted>(total: &T::Counters, object: &Arc<T>) {
    for cell in object.counters().iter() {
        total.absorb(cell);
    }
}

impl Counted for PerWorker<MemberCounters> {
    type Counters = MemberCounters;

    fn counters(&self) -> &PerWorker<MemberCounters> {
        self
    }
}

impl Counted for ListenerState {
    type Counters = ListenerCounters;

    fn counters(&self) -> &PerWorker<ListenerCounters> {
        &self.counters
    }
}

impl Counted for PoolState {
    type Counters = PoolCounters;

    fn counters(&self) -> &PerWorker<PoolCounters> {
        &self.counters
    }
}

fn add(ours: &Counter, theirs: &Counter) {
    ours.add(theirs.get());
}

impl Absorb for MemberCounters {
    fn absorb(&self, other: &Self) {
        let Self {
            bytes_in,
            bytes_out,
            sessions_max: _,
            sessions_total,
            last_session: _,
            selected,
            connects,
            reuses,
            idle: _,
            requests,
            connect_errors,
            response_errors,
            retries,
            redispatches,
            client_aborts,
            server_aborts,
            responses,
            connect_time_us,
            response_time_us,
            total_time_us,
            times: _,
        } = self;
        add(bytes_in, &other.bytes_in);
        add(bytes_out, &other.bytes_out);
        add(sessions_total, &other.sessions_total);
        add(selected, &other.selected);
        add(connects, &other.connects);
        add(reuses, &other.reuses);
        add(requests, &other.requests);
        add(connect_errors, &other.connect_errors);
        add(response_errors, &other.response_errors);
        add(retries, &other.retries);
        add(redispatches, &other.redispatches);
        add(client_aborts, &other.client_aborts);
        add(server_aborts, &other.server_aborts);
        add(connect_time_us, &other.connect_time_us);
        add(response_time_us, &other.response_time_us);
        add(total_time_us, &other.total_time_us);
        responses.iter().zip(&other.responses).for_each(|(ours, theirs)| add(ours, theirs));
    }
}

impl Absorb for HandshakeCounters {
    fn absorb(&self, other: &Self) {
        let Self { completed, resumed, failed } = self;
        add(completed, &other.completed);
        add(resumed, &other.resumed);
        failed.iter().zip(&other.failed).for_each(|(ours, theirs)| add(ours, theirs));
    }
}

impl Absorb for ListenerCounters {
    fn absorb(&self, other: &Self) {
        let Self {
            bytes_in,
            bytes_out,
            connections: _,
            connections_max: _,
            connections_total,
            connections_denied,
            requests,
            request_errors,
            requests_denied,
            requests_intercepted,
            requests_regex_limited,
            responses,
            handshakes,
            http2,
        } = self;
        add(bytes_in, &other.bytes_in);
        add(bytes_out, &other.bytes_out);
        add(connections_total, &other.connections_total);
        add(connections_denied, &other.connections_denied);
        add(requests, &other.requests);
        add(request_errors, &other.request_errors);
        add(requests_denied, &other.requests_denied);
        add(requests_intercepted, &other.requests_intercepted);
        add(requests_regex_limited, &other.requests_regex_limited);
        responses.iter().zip(&other.responses).for_each(|(ours, theirs)| add(ours, theirs));
        handshakes.absorb(&other.handshakes);
        http2.absorb(&other.http2);
    }
}

impl Absorb for PoolCounters {
    fn absorb(&self, other: &Self) {
        let Self {
            sessions: _,
            sessions_max: _,
            last_session: _,
            sessions_total,
            connect_errors,
            responses,
            handshakes,
            tls_connections: _,
            http2,
        } = self;
        add(sessions_total, &other.sessions_total);
        add(connect_errors, &other.connect_errors);
        responses.iter().zip(&other.responses).for_each(|(ours, theirs)| add(ours, theirs));
        handshakes.absorb(&other.handshakes);
        http2.absorb(&other.http2);
    }
}

impl Absorb for Http2Counters {
    fn absorb(&self, other: &Self) {
        let Self { connections, streams, resets_received, resets_sent, excesses, faults } = self;
        add(connections, &other.connections);
        add(streams, &other.streams);
        add(resets_received, &other.resets_received);
        add(resets_sent, &other.resets_sent);
        excesses.iter().zip(&other.excesses).for_each(|(ours, theirs)| add(ours, theirs));
        faults.iter().zip(&other.faults).for_each(|(ours, theirs)| add(ours, theirs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_is_counted_once_and_to_its_end() {
        let mut departed = Departed::default();
        let busy = Arc::new(PerWorker::<MemberCounters>::new(2));
        busy.of(0).requests.add(3);
        busy.of(1).requests.add(4);
        busy.of(1).idle.add(9);
        departed.add(busy.clone());
        assert_eq!(departed.sum().of(0).requests.get(), 7);
        busy.of(0).requests.add(1);
        let other = Arc::new(PerWorker::<MemberCounters>::new(2));
        other.of(1).responses[1].add(5);
        departed.add(other);
        assert_eq!(departed.sum().of(0).requests.get(), 8);
        drop(busy);
        departed.add(Arc::new(PerWorker::new(2)));
        assert_eq!(departed.leaving.len(), 1, "what is done is folded");
        let sum = departed.sum();
        let sum = sum.of(0);
        assert_eq!((sum.requests.get(), sum.responses[1].get(), sum.idle.get()), (8, 5, 0));
    }
}
