//! Counters: each worker writes its own cells without a read-modify-write cycle on the bus, readers sum them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

/// A counter or gauge with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts, for gauges; only the owning worker calls this.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Raises a high-water mark; only the owning worker calls this.
    #[inline]
    pub fn max(&self, n: u64) {
        if n > self.0.load(Ordering::Relaxed) {
            self.0.store(n, Ordering::Relaxed);
        }
    }

    /// Sets a gauge; only the owning worker calls this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The present value, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One cell per worker, each on cache lines of its own.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    /// Cells for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Padded::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// Cells for `workers` workers, each made by itself.
    pub fn with(workers: usize, make: impl Fn() -> T) -> Self {
        Self((0..workers).map(|_| Padded(make())).collect())
    }

    /// The cell of one worker.
    #[inline]
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    /// The cells of all workers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|cell| &cell.0)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.0.len()
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        self.0.iter().fold(0u64, |sum, cell| sum.wrapping_add(counter(&cell.0).get()))
    }

    /// The largest of one high-water mark over all workers.
    pub fn max(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        self.0.iter().map(|cell| counter(&cell.0).get()).max().unwrap_or(0)
    }
}

/// The class of a response's status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseClass {
    /// 100 to 199.
    Informational,
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirection,
    /// 400 to 499.
    ClientError,
    /// 500 to 599.
    ServerError,
    /// Anything else.
    Other,
}

impl ResponseClass {
    /// How many classes there are.
    pub const COUNT: usize = 6;

    /// The class of a status code.
    #[inline]
    pub fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::Other,
        }
    }
}

/// Why a TLS handshake did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The peer closed, or its connection failed; of members also: whom they were wanted for has left.
    Closed,
    /// It took too long.
    Late,
    /// The peer did not like what it was told: it has sent an alert.
    Alert,
    /// The peer's certificate is not good, or it has none.
    Certificate,
    /// The two have no version, cipher suite, group, signature scheme or protocol in common.
    Incompatible,
    /// What came is not TLS, or not as TLS is to be.
    Protocol,
    /// Anything else.
    Other,
}

impl HandshakeFailure {
    /// How many there are.
    pub const COUNT: usize = 7;
}

/// What one worker counts of the TLS handshakes with a listener's clients, or with a pool's members.
#[derive(Debug, Default)]
pub struct HandshakeCounters {
    /// Those that were completed (HAProxy `ssl_sess`).
    pub completed: Counter,
    /// Of these, those that have resumed a session (HAProxy `ssl_reused_sess`).
    pub resumed: Counter,
    /// Those that were not (HAProxy `ssl_failed_handshake`, and those that took too long), indexed by
    /// [`HandshakeFailure`].
    pub failed: [Counter; HandshakeFailure::COUNT],
}

impl HandshakeCounters {
    /// Those that have come to their end, whichever.
    pub fn ended(&self) -> u64 {
        self.failed.iter().fold(self.completed.get(), |sum, failed| sum.wrapping_add(failed.get()))
    }
}

/// A connection that a gauge counts for as long as this is there.
#[derive(Debug)]
pub struct Open(Arc<Counter>);

impl Open {
    /// Counts it; on the worker that owns the gauge, as all that becomes of it.
    pub fn new(gauge: &Arc<Counter>) -> Self {
        gauge.add(1);
        Self(Arc::clone(gauge))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// What one worker counts of connections of HTTP/2: a listener's clients', or those to a pool's members.
#[derive(Debug, Default)]
pub struct Http2Counters {
    /// Connections.
    pub connections: Counter,
    /// Streams that clients have opened, or we at members.
    pub streams: Counter,
    /// RST_STREAM that came.
    pub resets_received: Counter,
    /// RST_STREAM that we sent.
    pub resets_sent: Counter,
    /// Connections that were ended because there was too much of something, indexed by
    /// [`Excess`](crate::http2::guard::Excess).
    pub excesses: [Counter; Self::EXCESSES],
    /// Connections that were ended with an error, indexed by [`Fault`](crate::http2::guard::Fault).
    pub faults: [Counter; Self::FAULTS],
}

impl Http2Counters {
    /// How much there can be too much of.
    pub const EXCESSES: usize = 13;
    /// How many errors there are.
    pub const FAULTS: usize = 5;
}

/// What one worker counts for one listener. Bytes are those on the client's side of the proxy.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Bytes received from clients (Octavia `bytes_in`, HAProxy `bin`).
    pub bytes_in: Counter,
    /// Bytes sent to clients (Octavia `bytes_out`, HAProxy `bout`).
    pub bytes_out: Counter,
    /// Gauge: connections that are open (HAProxy `scur`).
    pub connections: Counter,
    /// High-water mark of connections at once on all workers, as this worker saw it (HAProxy `smax`).
    pub connections_max: Counter,
    /// Connections accepted, and where TLS is terminated those whose handshake was completed (HAProxy `stot`).
    pub connections_total: Counter,
    /// Connections refused by `allowed_cidrs` (HAProxy `dcon`).
    pub connections_denied: Counter,
    /// Requests, valid or not, that of a client which leaves before its first one is complete included (HAProxy
    /// `req_tot`).
    pub requests: Counter,
    /// Requests that were bad, incomplete or too slow; what a client gives up later is an abort (HAProxy `ereq`).
    pub request_errors: Counter,
    /// Requests that an L7 policy rejected (HAProxy `dreq`).
    pub requests_denied: Counter,
    /// Requests that an L7 policy redirected (HAProxy `intercepted`).
    pub requests_intercepted: Counter,
    /// Requests for which a regular expression did not match because all of them together would have cost too much; HAProxy
    /// does not count what its match limit ends.
    pub requests_regex_limited: Counter,
    /// Final responses by class, the proxy's own included (HAProxy `hrsp_*`), indexed by [`ResponseClass`]. Of
    /// [`ResponseClass::Other`] are also requests without any, because the client did not wait for it.
    pub responses: [Counter; ResponseClass::COUNT],
    /// TLS handshakes with clients.
    pub handshakes: HandshakeCounters,
    /// Clients' connections of HTTP/2.
    pub http2: Http2Counters,
}

/// What one worker counts for one pool, for what its members do not add up to.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Gauge: sessions or requests of this worker that are under way at members (HAProxy `scur`).
    pub sessions: Counter,
    /// High-water mark of `sessions`; those of all workers together are at least the pool's (HAProxy `smax`).
    pub sessions_max: Counter,
    /// Gauge: when a session was last given to a member, in seconds since the process started, plus one; 0 is never
    /// (HAProxy `lastsess`).
    pub last_session: Counter,
    /// Sessions or requests given to the pool, once each however often they were tried (HAProxy `stot`).
    pub sessions_total: Counter,
    /// Those of them for which there was no member to try (HAProxy `econ`, beside that of the members).
    pub connect_errors: Counter,
    /// What its requests came to, as [`ListenerCounters::responses`] has it: one for each (HAProxy `hrsp_*`, and
    /// `req_tot`, which is their sum).
    pub responses: [Counter; ResponseClass::COUNT],
    /// TLS handshakes with members.
    pub handshakes: HandshakeCounters,
    /// Gauge: connections to members over TLS, idle ones and those that shake hands included (HAProxy `CurrSslConns`, beside those
    /// with clients). They outlive what they were opened for.
    pub tls_connections: Arc<Counter>,
    /// Connections of HTTP/2 to members, which outlive what they were opened for.
    pub http2: Arc<Http2Counters>,
}

/// What one worker counts for one member in its pool. Bytes are those on the member's side of the proxy.
#[derive(Debug, Default)]
pub struct MemberCounters {
    /// Bytes sent to the member (HAProxy `bin`).
    pub bytes_in: Counter,
    /// Bytes received from the member (HAProxy `bout`).
    pub bytes_out: Counter,
    /// High-water mark of sessions at once, as this worker saw it (HAProxy `smax`).
    pub sessions_max: Counter,
    /// Sessions or requests given to the member, retries included (HAProxy `stot`).
    pub sessions_total: Counter,
    /// Gauge: when a session was last given to the member, in seconds since the process started, plus one; 0 is never
    /// (HAProxy `lastsess`).
    pub last_session: Counter,
    /// Times that balancing, not persistence, chose the member (HAProxy `lbtot`).
    pub selected: Counter,
    /// Connections attempted (HAProxy `connect`).
    pub connects: Counter,
    /// Requests carried by a connection that was already open (HAProxy `reuse`).
    pub reuses: Counter,
    /// Gauge: idle connections kept for reuse (HAProxy `idle_conn_cur`).
    pub idle: Counter,
    /// Requests that waited for a response head (HAProxy `req_tot`).
    pub requests: Counter,
    /// Sessions or requests that were given up after their last attempt at this member had failed (HAProxy `econ`).
    pub connect_errors: Counter,
    /// Responses that failed: bad, cut short, begun too late (HAProxy `eresp`).
    pub response_errors: Counter,
    /// Times that what had failed at this member was tried there again (HAProxy `wretr`).
    pub retries: Counter,
    /// Times that what had failed at this member was sent on to another (HAProxy `wredis`).
    pub redispatches: Counter,
    /// Sessions that the client gave up (HAProxy `cli_abrt`).
    pub client_aborts: Counter,
    /// Sessions that the member gave up (HAProxy `srv_abrt`).
    pub server_aborts: Counter,
    /// Responses by class, interim ones too (HAProxy `hrsp_*`), indexed by [`ResponseClass`].
    pub responses: [Counter; ResponseClass::COUNT],
    /// Sum of connect times, µs; over `connects`.
    pub connect_time_us: Counter,
    /// Sum of times from the request sent to the response head, µs; over `requests`.
    pub response_time_us: Counter,
    /// Sum of session times, µs; over `sessions_total`.
    pub total_time_us: Counter,
    /// The times of the last sessions.
    pub times: SessionTimes,
}

/// Sessions that [`SessionTimes`] averages over: the last of each worker, older ones with less and less weight.
pub const WINDOW: u64 = 1024;

/// What the last sessions of one worker took at a member. Sessions without a response are left out, as in HAProxy.
#[derive(Debug, Default)]
pub struct SessionTimes {
    /// Sessions that were taken.
    pub sessions: Counter,
    /// From the request to the connection, µs; 0 for one that was open already (HAProxy `ctime`, `ct_max`).
    pub connect: SlidingTime,
    /// From the connection to the head of the response, µs; 0 for TCP (HAProxy `rtime`, `rt_max`).
    pub response: SlidingTime,
    /// From the request to the end, µs (HAProxy `ttime`, `tt_max`).
    pub total: SlidingTime,
}

impl SessionTimes {
    /// Takes a session that has ended; only the owning worker calls this. Times in µs.
    #[inline]
    pub fn add(&self, connect: u64, response: u64, total: u64) {
        self.sessions.add(1);
        let full = self.sessions.get() > WINDOW;
        self.connect.add(connect, full);
        self.response.add(response, full);
        self.total.add(total, full);
    }

    /// How many sessions the sums of [`SlidingTime`] stand for.
    pub fn weight(&self) -> u64 {
        self.sessions.get().min(WINDOW)
    }
}

/// A time of the last [`WINDOW`] sessions.
#[derive(Debug, Default)]
pub struct SlidingTime {
    /// The sum over the window, µs: the mean times [`SessionTimes::weight`].
    pub sum: Counter,
    /// The longest ever, µs.
    pub max: Counter,
}

impl SlidingTime {
    #[inline]
    fn add(&self, time: u64, full: bool) {
        // A full window loses a mean time for each that comes.
        let sum = self.sum.get();
        let lost = if full { sum.div_ceil(WINDOW) } else { 0 };
        self.sum.set((sum - lost).saturating_add(time));
        self.max.max(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(times: &SessionTimes) -> u64 {
        times.connect.sum.get() / times.weight()
    }

    #[test]
    fn few_sessions_have_their_mean_and_many_that_of_the_last() {
        let times = SessionTimes::default();
        for time in [100, 200, 600] {
            times.add(time, 1, 2);
        }
        assert_eq!((mean(&times), times.connect.max.get()), (300, 600));
        for _ in 0..2 * WINDOW {
            times.add(1000, 1, 2);
        }
        assert!((900..=1000).contains(&mean(&times)), "{}", mean(&times));
        for _ in 0..20 * WINDOW {
            times.add(50, 1, 2);
        }
        assert!((49..=51).contains(&mean(&times)), "what was long ago is forgotten: {}", mean(&times));
        assert_eq!((times.connect.max.get(), times.response.max.get(), times.total.max.get()), (1000, 1, 2));
    }
}
