//! Checks of members that are spoken to over TLS.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use rustls::{ClientConfig, client::Resumption};

use crate::tls::ClientContext;

/// With what a target is spoken to over TLS: as members are in traffic, but without SNI (HAProxy has no `check-sni` of Octavia's)
/// and each time anew.
#[derive(Clone)]
pub struct TargetTls {
    config: Arc<ClientConfig>,
    /// For those of whom nothing is asked: they may agree on whatever they speak.
    unasked: Arc<ClientConfig>,
    identity: [u8; 32],
}

impl TargetTls {
    /// For members that are spoken to with this.
    pub fn new(context: &ClientContext) -> Self {
        let mut config = ClientConfig::clone(context.member().config());
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        let unasked = Arc::new(config.clone());
        // What is asked is HTTP/1.
        config.alpn_protocols.retain(|protocol| protocol.starts_with(b"http/1"));
        Self { config: Arc::new(config), unasked, identity: *context.identity() }
    }

    /// For a check that is over with the handshake.
    pub(super) fn of_handshake(&self) -> Self {
        Self { config: Arc::clone(&self.unasked), ..self.clone() }
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl PartialEq for TargetTls {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for TargetTls {}

impl Hash for TargetTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity.hash(state);
    }
}

impl fmt::Debug for TargetTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TargetTls")
    }
}
