//! Getting a connection to a member: persistence, balancing, retries, redispatch.

mod connect;

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use amphora_model::LbAlgorithm;
use rustls::ClientConfig;
use tokio::time::Instant;

use super::{
    dispatch::{ConnectFailure, Dispatch, Next, RETRIES, TURNAROUND},
    http::OwnConnections,
};
use crate::{
    balance::Flow,
    conn::{
        BufferPool, Conn, MemberTls,
        proxy_protocol::{self, Version},
    },
    http2::{Idle, MemberStreams, Place},
    local::{LocalMember, LocalPool, Slot},
    snapshot::{MemberPlan, PoolPlan},
    tls::PeerFacts,
};

/// The pool that a request or connection goes to, and what is known of the client.
pub(crate) struct Route<'a> {
    pub(crate) pool: &'a LocalPool,
    /// `timeout_member_connect`.
    pub(crate) timeout: Duration,
    pub(crate) flow: Flow,
    /// The member that persistence names, when it may still be used.
    pub(crate) persistent: Option<usize>,
    /// The member that is tried first all the same: its idle connection was dead, which does not mean that it is; or the
    /// client has been there before.
    pub(crate) again: Option<usize>,
    /// The member that has failed this request and does not get it again if there is another.
    pub(crate) avoid: Option<usize>,
    /// When it came, in seconds of the clock that all workers share.
    pub(crate) now: u32,
    /// Who counts.
    pub(crate) worker: usize,
    /// The header of the PROXY protocol that a new connection begins with; empty is none.
    pub(crate) header: Box<[u8]>,
    /// What is known of a client that speaks TLS.
    pub(crate) facts: Option<Rc<PeerFacts>>,
    pub(crate) buffers: &'a BufferPool,
    /// In which version.
    pub(crate) wanted: Wanted,
    /// Something is there to be said as soon as there is a connection.
    pub(crate) speaks_first: bool,
    /// What has been tried so far.
    pub(crate) effort: Cell<Effort>,
}

/// What is asked of a member, as far as the version of HTTP depends on it. Which of them there are is the pool's ALPN's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It is not HTTP, or not known to be.
    Bytes,
    /// A request, in any version.
    Request,
    /// An upgrade: in HTTP/2 of members that have said that they take an extended CONNECT, in HTTP/1.1 of others.
    Upgrade,
    /// A request with an identity that is the connection's: in HTTP/1.1, where there is such a thing. HTTP/2 is for those who
    /// cannot be spoken to otherwise, on a connection that serves nobody else.
    Identity,
}

/// What getting a connection to a member has taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
    /// One more than the index in the pool's plan of the member that is being tried, or was last.
    tried: u32,
    /// Attempts after the first.
    pub(crate) retries: u8,
    /// One of them went to another member.
    pub(crate) redispatched: bool,
    /// The last failed because it took too long.
    pub(crate) late: bool,
}

impl Effort {
    /// The member that is being tried, or was last, by its index in the pool's plan.
    pub(crate) fn tried(self) -> Option<usize> {
        (self.tried as usize).checked_sub(1)
    }
}

/// The header of the PROXY protocol that connections to members of this pool begin with, on behalf of a client that has connected
/// to `local`; empty is none.
pub(crate) fn header(
    pool: &PoolPlan,
    client: SocketAddr,
    local: impl FnOnce() -> io::Result<SocketAddr>,
    facts: Option<&PeerFacts>,
) -> Box<[u8]> {
    let Some(version) = pool.proxy_protocol else { return Box::default() };
    let mut header = Vec::new();
    // Of a connection that has failed there is no address, and nobody to serve either.
    let to = local().unwrap_or(client);
    match (version, facts) {
        // Octavia's `send-proxy-v2-ssl-cn`.
        (Version::V2, Some(facts)) => proxy_protocol::encode_tls(client, to, said_of(facts), &mut header),
        _ => proxy_protocol::encode(version, client, to, &mut header),
    }
    header.into()
}

fn said_of(facts: &PeerFacts) -> proxy_protocol::Tls<'_> {
    let certificate = facts.certificate.as_ref().map(|certificate| proxy_protocol::Certificate {
        resumed: facts.resumed,
        verify: facts.verify_result().into(),
        common_name: certificate.subject_field("CN"),
    });
    proxy_protocol::Tls { version: facts.version, alpn: facts.alpn.as_deref(), certificate }
}

/// A member that a request or connection was given to, and the connection.
pub(crate) struct Connected {
    pub(crate) slot: Slot,
    /// Index in the pool's plan.
    pub(crate) member: usize,
    pub(crate) carrier: Carrier,
    /// Since when it is there, if it was waited for.
    pub(crate) opened: Option<Instant>,
    /// It has carried an exchange before, or may have.
    pub(crate) reused: bool,
}

/// What carries a request or a session.
pub(crate) enum Carrier {
    /// All of a connection.
    Conn(Conn),
    /// A stream of one.
    Stream(Place),
}

impl Carrier {
    /// Our address of the connection.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Conn(conn) => conn.local_addr().ok(),
            Self::Stream(place) => place.local_addr(),
        }
    }
}

impl Connected {
    fn reused(slot: Slot, member: usize, carrier: Carrier) -> Self {
        slot.member().counters().reuses.add(1);
        Self { slot, member, carrier, opened: None, reused: true }
    }
}

/// No member could be reached, or none may be used: 503.
#[derive(Debug)]
pub(crate) struct NoMember;

/// A request that cannot be repeated may still use a connection that was idle for no longer than this: a member
/// that keeps connections at all keeps them for longer.
const FRESH: Duration = Duration::from_millis(500);

/// Which idle connections a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// None: what the request meets is to be open surely.
    Never,
    /// One that was used within [`FRESH`], or over HTTP/2 any whose end has not come: a request that cannot be repeated.
    Fresh,
    /// Any: a request that can be repeated.
    Any,
}

impl Reuse {
    /// The same of connections of HTTP/2, which others may use meanwhile. Their members say that they end before they do.
    fn streams(self) -> Idle {
        match self {
            Self::Never => Idle::Since(Instant::now()),
            Self::Fresh => Idle::Quiet,
            Self::Any => Idle::Any,
        }
    }
}

/// What an attempt begins with.
pub(crate) enum Begun {
    /// An idle connection.
    Connected(Connected),
    /// There is none: one has to be [opened](Route::open).
    Chosen(Chosen),
}

/// The member that an attempt begins with.
pub(crate) struct Chosen {
    slot: Slot,
    member: usize,
}

impl Route<'_> {
    /// Chooses a member and takes an idle connection to it, if there is one.
    ///
    /// # Errors
    /// When none may be used.
    pub(crate) fn begin(&self, reuse: Reuse) -> Result<Begun, NoMember> {
        let member = match self.persistent.or(self.again) {
            Some(member) => member,
            None => self.pick(|_| false, None)?,
        };
        let slot = self.slot(member);
        Ok(match self.idle(&slot, reuse) {
            Some(carrier) => Begun::Connected(Connected::reused(slot, member, carrier)),
            None => Begun::Chosen(Chosen { slot, member }),
        })
    }

    /// Makes a connection to the member that was chosen, or gets one to another when that cannot be.
    ///
    /// # Errors
    /// When no member is left to try.
    pub(crate) async fn open(&self, chosen: Chosen, reuse: Reuse) -> Result<Connected, NoMember> {
        let (plan, timeout) = (&*self.pool.plan, self.timeout);
        let mut dispatch = Dispatch::new(self.has_free_choice());
        let Chosen { mut slot, mut member } = chosen;
        loop {
            let address = plan.members[member].address();
            let failure = match self.connect_in_time(slot.member(), address, reuse).await {
                Ok((carrier, at, reused)) => {
                    return Ok(Connected { slot, member, carrier, opened: Some(at), reused });
                }
                Err(failure) => failure,
            };
            let next = dispatch.failed(member, failure, timeout);
            let effort = self.effort.get();
            let retries = match failure {
                // HAProxy gives up by having none left, which its log tells.
                ConnectFailure::OtherHost => RETRIES as u8,
                _ => effort.retries,
            };
            self.effort.set(Effort { late: failure == ConnectFailure::Timeout, retries, ..effort });
            if next == Next::GiveUp {
                slot.member().counters().connect_errors.add(1);
                return Err(NoMember);
            }
            // It does not weigh on the member while nothing is tried there.
            drop(slot);
            let failed = member;
            if let Next::Same(pause) = next {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                // A check may have taken the member down meanwhile.
                if !plan.members[member].is_usable() {
                    member = self.pick(|index| dispatch.has_tried(index), Some(failed))?;
                }
            } else {
                member = self.pick(|index| dispatch.has_tried(index), Some(failed))?;
                if member == failed && failure == ConnectFailure::Error {
                    // There is no other: this one is given the time that any retry gives it.
                    tokio::time::sleep(TURNAROUND.min(timeout)).await;
                }
            }
            self.again(failed, member);
            slot = self.slot(member);
            if let Some(carrier) = self.idle(&slot, reuse) {
                return Ok(Connected::reused(slot, member, carrier));
            }
        }
    }

    /// Nothing ties the request to its member.
    fn has_free_choice(&self) -> bool {
        let plan = &*self.pool.plan;
        let able = |member: &&MemberPlan| !member.backup && member.weight > 0 && member.is_usable();
        self.persistent.is_none()
            && matches!(plan.algorithm, LbAlgorithm::RoundRobin | LbAlgorithm::LeastConnections)
            && plan.members.iter().filter(able).nth(1).is_some()
    }

    fn slot(&self, member: usize) -> Slot {
        self.effort.set(Effort { tried: member as u32 + 1, ..self.effort.get() });
        self.pool.slot(member, self.now)
    }

    /// What is there to carry a request: room on a connection of HTTP/2, whoever uses it, or an idle one of HTTP/1.1.
    fn idle(&self, slot: &Slot, reuse: Reuse) -> Option<Carrier> {
        if self.wanted != Wanted::Bytes
            && let Some(streams) = self.streams(slot.member())
            && let Some(place) = streams.place(reuse.streams())
            && (self.wanted == Wanted::Request || place.takes_extended_connect())
        {
            return Some(Carrier::Stream(place));
        }
        let idle = match reuse {
            Reuse::Never => None,
            // The header at the start of the connection names one client, and so does its address.
            _ if self.pool.plan.proxy_protocol.is_some() || self.pool.plan.member_options.transparent => None,
            Reuse::Fresh => {
                let config = self.config(slot.member());
                slot.member().take_fresh(self.client(), self.tls(config.as_ref()), FRESH)
            }
            Reuse::Any => {
                let config = self.config(slot.member());
                slot.member().take_idle(self.client(), self.tls(config.as_ref()))
            }
        };
        idle.map(Carrier::Conn)
    }

    /// With what the member is spoken to; `None` is plainly.
    #[inline]
    fn config(&self, member: &LocalMember) -> Option<Arc<ClientConfig>> {
        self.pool.plan.tls.as_ref().map(|context| match self.wanted {
            Wanted::Identity => member.http1_config(context).unwrap_or_else(|| member.tls_config(context)),
            _ => member.tls_config(context),
        })
    }

    /// Connections on which the member may be asked for this in HTTP/2; `None` when it is not to be.
    #[inline]
    fn streams(&self, member: &Rc<LocalMember>) -> Option<MemberStreams> {
        let context = self.pool.plan.tls.as_ref()?;
        match self.wanted {
            Wanted::Bytes => None,
            Wanted::Identity => member.http1_config(context).is_none().then(|| member.stream_alone()),
            Wanted::Request | Wanted::Upgrade => {
                let sni = self.sni();
                let transparent = self.pool.plan.member_options.transparent && self.header.is_empty();
                // As a header that names the client, its address makes the connection its own.
                match transparent.then(|| self.flow.source.to_string()) {
                    Some(client) => member.streams(context, sni, client.as_bytes()),
                    None => member.streams(context, sni, &self.header),
                }
            }
        }
    }

    #[inline]
    fn tls<'b>(&'b self, config: Option<&'b Arc<ClientConfig>>) -> Option<MemberTls<'b>> {
        let sni = self.sni();
        config.map(|config| MemberTls { config, sni })
    }

    /// The name that a member is asked for: the client's.
    #[inline]
    fn sni(&self) -> Option<&str> {
        self.facts.as_ref().and_then(|facts| facts.sni.as_deref())
    }

    /// Takes the client's own connection to `member`.
    pub(crate) fn take_own(&self, member: usize, own: &mut OwnConnections) -> Option<Connected> {
        let local = &self.pool.members[member];
        let config = self.config(local);
        let stream = own.take(local, self.tls(config.as_ref()))?;
        Some(Connected::reused(self.slot(member), member, Carrier::Conn(stream)))
    }

    /// Counts what `failed` at one member and is tried again, there or at another.
    pub(crate) fn again(&self, failed: usize, next: usize) {
        let effort = self.effort.get();
        self.effort.set(Effort {
            retries: effort.retries + 1,
            redispatched: effort.redispatched || failed != next,
            ..effort
        });
        count_again(&self.pool.members[failed], &self.pool.members[next]);
    }

    /// Counts that the client has left while a member was being tried.
    pub(crate) fn abandoned(&self) {
        if let Some(tried) = self.effort.get().tried() {
            self.pool.members[tried].counters().client_aborts.add(1);
        }
    }

    fn client(&self) -> SocketAddr {
        SocketAddr::new(self.flow.source, self.flow.source_port)
    }

    /// Lets the algorithm choose; the one that `failed` last is chosen anew only in name.
    fn pick(&self, tried: impl Fn(usize) -> bool, failed: Option<usize>) -> Result<usize, NoMember> {
        let avoid = |index| tried(index) || self.avoid == Some(index);
        let Some(member) = self.pool.pick(&self.flow, avoid) else {
            self.pool.plan.state.counters.of(self.worker).connect_errors.add(1);
            return Err(NoMember);
        };
        if failed != Some(member) {
            self.pool.members[member].counters().selected.add(1);
        }
        Ok(member)
    }
}

fn count_again(failed: &Rc<LocalMember>, next: &Rc<LocalMember>) {
    let counters = failed.counters();
    if Rc::ptr_eq(failed, next) { counters.retries.add(1) } else { counters.redispatches.add(1) }
}
