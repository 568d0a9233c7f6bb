//! Connections of HTTP/2 to one member, as one worker shares them among its clients.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use rustls::ClientConfig;

use super::idle::IDLE_TIMEOUT;
use crate::{
    http2::{Backlog, Keep, Limits, MemberStreams, Versions, Watch},
    state::Http2Counters,
    tls::ClientContext,
};

/// HTTP/2 in ALPN.
const H2: &[u8] = b"h2";

/// How a worker keeps connections to members. There are as many as requests take: each of these has a client, of whom there
/// are [so many](crate::limits::Clients).
const KEEP: Keep = Keep {
    connections: usize::MAX,
    idle: IDLE_TIMEOUT,
    silence: Duration::from_secs(1),
    patience: Duration::from_secs(10),
    http1: Duration::from_secs(300),
};

/// Above so many sets those that are not used are looked for.
const FEW: usize = 16;

/// TLS of one member, as one worker has it: what it is spoken to with, and its connections that are shared.
pub(super) struct OverTls {
    /// [`ClientContext::identity`].
    identity: [u8; 32],
    config: Arc<ClientConfig>,
    /// For those who are to be spoken to in HTTP/1.1; `None` when HTTP/2 is all that may be offered.
    http1: Option<Arc<ClientConfig>>,
    /// Connections, by what the member is [told](key) at the beginning of each. `None` when HTTP/2 is not offered.
    streams: Option<RefCell<Sets>>,
}

struct Sets {
    versions: Rc<Versions>,
    by_key: HashMap<Box<[u8]>, MemberStreams>,
    /// How many there may be before unused ones are looked for.
    enough: usize,
}

impl OverTls {
    pub(super) fn new(context: &ClientContext) -> Self {
        let config = Arc::clone(context.member().config());
        let offers_http2 = config.alpn_protocols.iter().any(|protocol| protocol == H2);
        let http1 = if offers_http2 {
            let mut http1 = ClientConfig::clone(&config);
            http1.alpn_protocols.retain(|protocol| protocol != H2);
            (!http1.alpn_protocols.is_empty()).then(|| Arc::new(http1))
        } else {
            Some(Arc::clone(&config))
        };
        let versions = || Rc::new(Versions::new(http1.is_some()));
        let sets = || Sets { versions: versions(), by_key: HashMap::new(), enough: 0 };
        let streams = offers_http2.then(|| RefCell::new(sets()));
        Self { identity: *context.identity(), config, http1, streams }
    }

    /// Whether it is made of this.
    pub(super) fn is_of(&self, context: &ClientContext) -> bool {
        self.identity == *context.identity()
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        match &self.http1 {
            Some(http1) if self.requires_http1() => http1,
            _ => &self.config,
        }
    }

    /// Whether the member is not to be spoken to in HTTP/2 for now.
    fn requires_http1(&self) -> bool {
        self.streams.as_ref().is_some_and(|sets| sets.borrow().versions.require_http1())
    }

    pub(super) fn http1(&self) -> Option<&Arc<ClientConfig>> {
        self.http1.as_ref()
    }

    /// Connections to a member that is asked for this host, behind this header of the PROXY protocol. `None` when HTTP/2 is not
    /// offered, or not for now.
    pub(super) fn streams(
        &self,
        sni: Option<&str>,
        header: &[u8],
        counted: impl FnOnce() -> (Arc<Http2Counters>, Rc<Backlog>, Watch),
    ) -> Option<MemberStreams> {
        let mut sets = self.streams.as_ref()?.borrow_mut();
        if sets.versions.require_http1() {
            return None;
        }
        let sni = sni.unwrap_or_default().as_bytes();
        let joined;
        // No name has a NUL.
        let key = if header.is_empty() {
            sni
        } else {
            joined = [sni, b"\0", header].concat();
            &joined
        };
        if let Some(streams) = sets.by_key.get(key) {
            return Some(streams.clone());
        }
        if sets.by_key.len() >= sets.enough.max(FEW) {
            sets.by_key.retain(|_, streams| streams.is_used());
            sets.enough = 2 * sets.by_key.len();
        }
        let versions = Rc::clone(&sets.versions);
        let (counters, backlog, watch) = counted();
        let streams =
            MemberStreams::shared(Limits::default(), KEEP, counters, backlog, versions, Some(watch));
        sets.by_key.insert(key.into(), streams.clone());
        Some(streams)
    }

    /// Ends a connection that has no stream; whether there was one.
    pub(super) fn close_idle(&self) -> bool {
        self.streams.as_ref().is_some_and(|sets| sets.borrow().by_key.values().any(MemberStreams::close_idle))
    }

    /// How many connections have no stream.
    pub(super) fn idle(&self) -> usize {
        self.streams.as_ref().map_or(0, |sets| sets.borrow().by_key.values().map(MemberStreams::idle).sum())
    }
}

impl Drop for OverTls {
    /// Connections end with what is on them.
    fn drop(&mut self) {
        if let Some(sets) = &self.streams {
            for streams in sets.borrow().by_key.values() {
                streams.close();
            }
        }
    }
}

/// For one request, whose connection nobody shares.
pub(super) fn alone(counters: Arc<Http2Counters>, backlog: Rc<Backlog>) -> MemberStreams {
    MemberStreams::alone(Limits::default(), KEEP, counters, backlog)
}
