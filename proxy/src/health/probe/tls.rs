//! `TLS-HELLO`: HAProxy's `option ssl-hello-chk`, and the TLS client of `HTTPS` probes.
//!
//! HAProxy greets with an SSL 3.0 hello, to which a present-day server says no more than an alert, and takes that for
//! a pass. The hello here is one of TLS 1.3 and 1.2; an alert passes all the same: there is a TLS server.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use rustls::{ClientConfig, ClientConnection, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;

use super::outcome::{CheckStatus, Found};
use crate::tls::{
    groups::TO_MEMBERS,
    unverified::{TakesAny, take_any_signature},
};

/// A handshake to come with the target at this address.
pub(super) fn client(address: IpAddr, config: Arc<ClientConfig>) -> Result<ClientConnection, Found> {
    // A name that is an address is not sent as SNI (RFC 6066 section 3).
    let name = ServerName::IpAddress(address.into());
    ClientConnection::new(config, name)
        .map_err(|error| Found::because(CheckStatus::SocketError, error.to_string()))
}

/// What the first bytes that answer a ClientHello mean; `None` while there are too few of them.
pub(super) fn judge_hello(bytes: &[u8], ended: bool) -> Option<Found> {
    let failed = CheckStatus::L6Response;
    match bytes {
        [ALERT | HANDSHAKE, 3, _, _, _, ..] => Some(Found::new(CheckStatus::L6Ok)),
        [_, _, _, _, _, ..] => Some(Found::because(failed, "not a TLS record")),
        _ if ended => Some(Found::because(failed, "connection closed without an answer")),
        _ => None,
    }
}

/// RFC 8446 section 5.1, `ContentType`.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// A client that takes any certificate (HAProxy `check-ssl verify none`).
pub(super) fn accept_any() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = TO_MEMBERS.to_vec();
        take_any_signature(&mut provider);
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakesAny))
            .with_no_client_auth();
        // Each probe is to be a handshake of its own.
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}
