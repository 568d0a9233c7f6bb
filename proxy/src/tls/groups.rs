//! Key exchange: the groups that are offered, and the one among them that rustls does not bring along.

use aws_lc_rs::{agreement, rand::SystemRandom};
use rustls::{
    NamedGroup, PeerMisbehaved,
    crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup, aws_lc_rs::kx_group},
    ffdhe_groups::FfdheGroup,
};

/// What clients may choose from, in order of preference: the hybrid of X25519 and ML-KEM-768 first, which holds against
/// quantum computers as well; then what OpenSSL offers.
pub(super) const TO_CLIENTS: &[&'static dyn SupportedKxGroup] =
    &[kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, &Secp521r1];

/// What members may choose from: a hello that fits one segment, for servers that take no longer one.
pub(crate) const TO_MEMBERS: &[&'static dyn SupportedKxGroup] =
    &[kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, &Secp521r1];

/// Ephemeral ECDH on P-521, which rustls does not bring along.
#[derive(Debug)]
struct Secp521r1;

impl SupportedKxGroup for Secp521r1 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        let random = |_| rustls::Error::from(GetRandomFailed);
        let private = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P521, &SystemRandom::new());
        let private = private.map_err(random)?;
        let public = private.compute_public_key().map_err(random)?;
        Ok(Box::new(Secp521r1Exchange { private, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct Secp521r1Exchange {
    private: agreement::EphemeralPrivateKey,
    public: agreement::PublicKey,
}

impl ActiveKeyExchange for Secp521r1Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let wrong = rustls::Error::from(PeerMisbehaved::InvalidKeyShare);
        // Uncompressed points alone (RFC 8446 section 4.2.8.2).
        if peer.first() != Some(&4) {
            return Err(wrong);
        }
        let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P521, peer);
        agreement::agree_ephemeral(self.private, peer, wrong, |secret| Ok(SharedSecret::from(secret)))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_ref()
    }
}
