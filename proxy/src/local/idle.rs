//! Idle connections to one member, as one worker keeps them, and whom each may serve next.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use tokio::time::Instant;

use crate::conn::{Conn, MemberTls};

/// Idle connections that one worker keeps per member. Beyond this the oldest is closed: a burst of clients
/// leaves no burst of connections behind. Where what was closed is missed soon after, as many more are kept as that was, until they
/// are not used any more: some hundred requests at once would open most of their connections anew each time.
const IDLE_PER_MEMBER: usize = 64;

/// How long an idle connection to a member is kept. Shorter than the keep-alive of common servers, so that
/// it is mostly we who close and seldom a request that finds the connection dead.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A member that has misunderstood a message says so on its own within this time, or not at all: what it writes behind
/// a head may wait for an acknowledgement, and that one for 40 ms.
pub(crate) const DOUBT: Duration = Duration::from_millis(100);

/// Whom a connection may serve after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Anybody.
    Full,
    /// The client of the exchange; others once it has been quiet for [`DOUBT`]: the member may have taken what this
    /// client sent for something else.
    Client(SocketAddr),
    /// Nobody before it has been quiet for [`DOUBT`].
    None,
}

/// The idle connections of a member. The one that was used last is the first to be used again.
#[derive(Default)]
pub(super) struct IdleConnections {
    trusted: Vec<Idle>,
    /// In the order of their last use.
    doubted: VecDeque<(Idle, Option<SocketAddr>)>,
    /// So many are kept beyond [`IDLE_PER_MEMBER`].
    more: usize,
    /// So many were closed since the last sweep because they were too many, and have not been missed.
    closed: usize,
    /// The fewest that there were since the last sweep: nobody has had a use for as many.
    fewest: usize,
}

struct Idle {
    stream: Conn,
    since: Instant,
}

impl IdleConnections {
    pub(super) fn len(&self) -> usize {
        self.trusted.len() + self.doubted.len()
    }

    /// Keeps a connection, and closes the oldest when there are too many.
    pub(super) fn put(&mut self, stream: Conn, now: Instant, trust: Trust) {
        if self.len() >= IDLE_PER_MEMBER + self.more {
            self.close_oldest();
            self.closed += 1;
        }
        let idle = Idle { stream, since: now };
        match trust {
            Trust::Full => self.trusted.push(idle),
            Trust::Client(client) => self.doubted.push_back((idle, Some(client))),
            Trust::None => self.doubted.push_back((idle, None)),
        }
    }

    /// Closes the one that has not been used for longest, those in doubt last: each of them is about to be asked for again.
    pub(super) fn close_oldest(&mut self) {
        if self.trusted.is_empty() {
            self.doubted.pop_front();
        } else {
            self.trusted.remove(0);
        }
    }

    /// A connection for a request of `client` that can be repeated if the connection turns out to be dead, to the member spoken
    /// to in this way. No system call unless all are in doubt: only those are passed over that the runtime has seen become
    /// readable.
    #[inline]
    pub(super) fn take(&mut self, client: SocketAddr, tls: Option<MemberTls<'_>>) -> Option<Conn> {
        let taken = self.find(client, tls);
        self.asked(taken.is_some());
        taken
    }

    #[inline]
    fn find(&mut self, client: SocketAddr, tls: Option<MemberTls<'_>>) -> Option<Conn> {
        if !self.doubted.is_empty()
            && let Some(mut own) = self.take_own(client, tls, IDLE_TIMEOUT)
            && own.is_quiet_so_far()
        {
            return Some(own);
        }
        // Of plain members, and of those that all clients ask for the same, it is the last.
        while let Some(at) = self.trusted.iter().rposition(|idle| idle.stream.is_for(tls)) {
            let mut entry = self.trusted.remove(at);
            if entry.stream.is_quiet_so_far() {
                return Some(entry.stream);
            }
        }
        self.take_cleared(tls, IDLE_TIMEOUT)
    }

    /// The same for a request that cannot be repeated: no longer idle than `max_idle`, and open at this moment.
    pub(super) fn take_fresh(
        &mut self,
        client: SocketAddr,
        tls: Option<MemberTls<'_>>,
        max_idle: Duration,
    ) -> Option<Conn> {
        let taken = self.find_fresh(client, tls, max_idle);
        self.asked(taken.is_some());
        taken
    }

    fn find_fresh(
        &mut self,
        client: SocketAddr,
        tls: Option<MemberTls<'_>>,
        max_idle: Duration,
    ) -> Option<Conn> {
        if let Some(mut own) = self.take_own(client, tls, max_idle)
            && own.is_quiet()
        {
            return Some(own);
        }
        // Those below the first that is too old are older still.
        while let Some(at) = self.trusted.iter().rposition(|idle| idle.stream.is_for(tls))
            && self.trusted[at].since.elapsed() <= max_idle
        {
            let mut entry = self.trusted.remove(at);
            if entry.stream.is_quiet() {
                return Some(entry.stream);
            }
        }
        self.take_cleared(tls, max_idle)
    }

    /// Somebody has asked for one.
    #[inline]
    fn asked(&mut self, found: bool) {
        let left = self.len();
        self.fewest = self.fewest.min(left);
        if !found && left == 0 && self.closed > 0 {
            self.closed -= 1;
            self.more += 1;
        }
    }

    /// The one that this client has used last, while others doubt it.
    fn take_own(
        &mut self,
        client: SocketAddr,
        tls: Option<MemberTls<'_>>,
        max_idle: Duration,
    ) -> Option<Conn> {
        let usable = |(idle, user): &(Idle, _)| {
            *user == Some(client) && idle.since.elapsed() <= max_idle && idle.stream.is_for(tls)
        };
        let own = self.doubted.iter().rposition(usable)?;
        self.doubted.remove(own).map(|(idle, _)| idle.stream)
    }

    /// One whose time of doubt has passed in silence.
    fn take_cleared(&mut self, tls: Option<MemberTls<'_>>, max_idle: Duration) -> Option<Conn> {
        let mut at = 0;
        while let Some((idle, _)) = self.doubted.get(at) {
            let age = idle.since.elapsed();
            if age < DOUBT {
                break;
            }
            if age > max_idle || !idle.stream.is_for(tls) {
                at += 1;
                continue;
            }
            let (mut idle, _) = self.doubted.remove(at)?;
            if idle.stream.is_quiet() {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Closes those that are too old or that the member has closed or written to, and those beyond [`IDLE_PER_MEMBER`] that were not
    /// used since the last time.
    pub(super) fn sweep(&mut self, now: Instant) {
        let keeps = |idle: &mut Idle| now.duration_since(idle.since) < IDLE_TIMEOUT && idle.stream.is_quiet();
        self.trusted.retain_mut(keeps);
        self.doubted.retain_mut(|(idle, _)| keeps(idle));
        self.more = self.more.saturating_sub(self.fewest);
        while self.len() > IDLE_PER_MEMBER + self.more {
            self.close_oldest();
        }
        self.closed = 0;
        self.fewest = self.len();
        if self.trusted.is_empty() {
            self.trusted.shrink_to_fit();
        }
        if self.doubted.is_empty() {
            self.doubted.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
        time::advance,
    };

    use super::*;

    const FRESH: Duration = Duration::from_millis(500);

    /// Both ends of a connection.
    async fn pair() -> (Conn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours.into(), listener.accept().await.unwrap().0)
    }

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// A connection that was put so, and its other end.
    async fn with(trust: Trust) -> (IdleConnections, TcpStream) {
        let (ours, theirs) = pair().await;
        let mut idle = IdleConnections::default();
        idle.put(ours, Instant::now(), trust);
        (idle, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_trusted_connection_serves_anybody_at_once() {
        let (mut idle, _theirs) = with(Trust::Full).await;
        assert!(idle.take(client(1), None).is_some() && idle.len() == 0);
        let (mut idle, _theirs) = with(Trust::Full).await;
        assert!(idle.take_fresh(client(1), None, FRESH).is_some() && idle.len() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_a_client_may_have_spoilt_serves_it_and_others_only_later() {
        let (mut idle, _theirs) = with(Trust::Client(client(1))).await;
        assert!(idle.take(client(2), None).is_none() && idle.take_fresh(client(2), None, FRESH).is_none());
        assert!(idle.take(client(1), None).is_some());
        let (mut idle, _theirs) = with(Trust::Client(client(1))).await;
        assert!(idle.take_fresh(client(1), None, FRESH).is_some());
        let (mut idle, _theirs) = with(Trust::Client(client(1))).await;
        advance(DOUBT - Duration::from_millis(1)).await;
        assert!(idle.take(client(2), None).is_none());
        advance(Duration::from_millis(1)).await;
        assert!(idle.take(client(2), None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_in_doubt_serves_nobody_before_it_has_been_quiet() {
        let (mut idle, _theirs) = with(Trust::None).await;
        assert!(idle.take(client(1), None).is_none());
        advance(DOUBT).await;
        assert!(idle.take_fresh(client(1), None, FRESH).is_some());
        // Not even when the runtime has not heard of it yet.
        let (mut idle, mut theirs) = with(Trust::None).await;
        theirs.write_all(b"late").await.unwrap();
        advance(DOUBT).await;
        assert!(idle.take(client(1), None).is_none() && idle.len() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_for_one_request_stays_for_another() {
        let (mut idle, _theirs) = with(Trust::None).await;
        advance(FRESH + Duration::from_millis(1)).await;
        let (ours, _other) = pair().await;
        idle.put(ours, Instant::now(), Trust::None);
        assert!(idle.take_fresh(client(1), None, FRESH).is_none());
        advance(DOUBT).await;
        assert!(idle.take_fresh(client(1), None, FRESH).is_some() && idle.len() == 1);
        assert!(idle.take(client(1), None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_used_last_is_taken_first_and_the_oldest_goes_when_there_are_too_many() {
        let mut idle = IdleConnections::default();
        let mut theirs = Vec::new();
        let mut addresses = Vec::new();
        for number in 0..IDLE_PER_MEMBER + 2 {
            let (ours, other) = pair().await;
            addresses.push(ours.local_addr().unwrap());
            theirs.push(other);
            let trust = if number % 2 == 0 { Trust::Full } else { Trust::Client(client(1)) };
            idle.put(ours, Instant::now(), trust);
        }
        assert_eq!(idle.len(), IDLE_PER_MEMBER);
        let taken = |stream: Option<Conn>| stream.unwrap().local_addr().unwrap();
        assert_eq!(taken(idle.take(client(2), None)), addresses[IDLE_PER_MEMBER]);
        assert_eq!(taken(idle.take(client(1), None)), addresses[IDLE_PER_MEMBER + 1]);
        assert_eq!(taken(idle.take(client(1), None)), addresses[IDLE_PER_MEMBER - 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn more_are_kept_when_they_were_missed_and_for_as_long_as_they_are_used() {
        const MANY: usize = IDLE_PER_MEMBER + 10;
        let mut idle = IdleConnections::default();
        let mut theirs = Vec::new();
        let mut used = Vec::new();
        for _ in 0..MANY {
            let (ours, other) = pair().await;
            used.push(ours);
            theirs.push(other);
        }
        let put_all = |idle: &mut IdleConnections, used: &mut Vec<Conn>| {
            for ours in used.drain(..) {
                idle.put(ours, Instant::now(), Trust::Full);
            }
        };
        let take_all = |idle: &mut IdleConnections, used: &mut Vec<Conn>| {
            used.extend(std::iter::from_fn(|| idle.take(client(1), None)));
        };
        // One burst leaves none behind, nor does one that comes after nothing was closed.
        put_all(&mut idle, &mut used);
        assert_eq!(idle.len(), IDLE_PER_MEMBER);
        idle.sweep(Instant::now());
        take_all(&mut idle, &mut used);
        assert_eq!((used.len(), idle.more), (IDLE_PER_MEMBER, 0));
        // As many are kept as had to be made anew.
        for _ in 0..10 {
            let (ours, other) = pair().await;
            used.push(ours);
            theirs.push(other);
        }
        put_all(&mut idle, &mut used);
        take_all(&mut idle, &mut used);
        assert_eq!((used.len(), idle.more), (IDLE_PER_MEMBER, 1), "one was missed");
        for _ in 0..5 {
            assert!(idle.take(client(1), None).is_none());
        }
        assert_eq!(idle.more, 6);
        for _ in 0..6 {
            let (ours, other) = pair().await;
            used.push(ours);
            theirs.push(other);
        }
        put_all(&mut idle, &mut used);
        assert_eq!(idle.len(), IDLE_PER_MEMBER + 6);
        // All of them have been used since the last sweep, and since the next all but these.
        idle.sweep(Instant::now());
        assert_eq!(idle.len(), IDLE_PER_MEMBER + 6);
        for _ in 0..IDLE_PER_MEMBER + 2 {
            used.extend(idle.take(client(1), None));
        }
        put_all(&mut idle, &mut used);
        idle.sweep(Instant::now());
        assert_eq!(idle.len(), IDLE_PER_MEMBER + 2);
        idle.sweep(Instant::now());
        assert_eq!((idle.len(), idle.more), (IDLE_PER_MEMBER, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn sweeping_closes_what_is_old_or_not_quiet() {
        for trust in [Trust::Full, Trust::None] {
            let (mut idle, theirs) = with(trust).await;
            idle.sweep(Instant::now());
            assert_eq!(idle.len(), 1, "{trust:?}");
            drop(theirs);
            idle.sweep(Instant::now());
            assert_eq!(idle.len(), 0, "{trust:?}");
            let (mut idle, _theirs) = with(trust).await;
            idle.sweep(Instant::now() + IDLE_TIMEOUT);
            assert_eq!(idle.len(), 0, "{trust:?}");
        }
    }
}
