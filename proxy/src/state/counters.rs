//! Counters: each worker writes its own cells without a read-modify-write cycle on the bus, readers sum them.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// The cell of one worker.
    #[inline]
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker].0
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
    /// Connections accepted (HAProxy `stot`/`conn_tot`).
    pub connections_total: Counter,
    /// Connections refused by `allowed_cidrs` (HAProxy `dcon`).
    pub connections_denied: Counter,
    /// Requests read whole, valid or not (HAProxy `req_tot`).
    pub requests: Counter,
    /// Requests that could not be served because of the client: bad, too slow, aborted (HAProxy `ereq`).
    pub request_errors: Counter,
    /// Requests that an L7 policy rejected (HAProxy `dreq`).
    pub requests_denied: Counter,
    /// Responses by class, the proxy's own included (HAProxy `hrsp_*`), indexed by [`ResponseClass`].
    pub responses: [Counter; ResponseClass::COUNT],
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
    /// Sessions or requests given to the member (HAProxy `stot`).
    pub sessions_total: Counter,
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
    /// Connections that could not be made (HAProxy `econ`).
    pub connect_errors: Counter,
    /// Responses that failed: bad, cut short, too late (HAProxy `eresp`).
    pub response_errors: Counter,
    /// Connection attempts repeated on the same member (HAProxy `wretr`).
    pub retries: Counter,
    /// Requests sent on to another member after this one failed (HAProxy `wredis`).
    pub redispatches: Counter,
    /// Sessions that the client gave up (HAProxy `cli_abrt`).
    pub client_aborts: Counter,
    /// Sessions that the member gave up (HAProxy `srv_abrt`).
    pub server_aborts: Counter,
    /// Responses by class (HAProxy `hrsp_*`), indexed by [`ResponseClass`].
    pub responses: [Counter; ResponseClass::COUNT],
    /// Sum of connect times, µs; over `connects`.
    pub connect_time_us: Counter,
    /// Sum of times from the request sent to the response head, µs; over `requests`.
    pub response_time_us: Counter,
    /// Sum of session times, µs; over `sessions_total`.
    pub total_time_us: Counter,
}
