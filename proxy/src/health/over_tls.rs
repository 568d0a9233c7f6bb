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
    identity: [u8; 32],
}

impl TargetTls {
    /// For members that are spoken to with this.
    pub fn new(context: &ClientContext) -> Self {
        let mut config = ClientConfig::clone(context.member().config());
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Self { config: Arc::new(config), identity: *context.identity() }
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
