//! Whose revocation lists are: who has signed them.

use std::sync::LazyLock;

use amphora_x509::{AlgorithmIdentifier, Certificate, PublicKey, RevocationList, oid::dotted};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};

use crate::Bundle;

/// The bit of `cRLSign` in `keyUsage`.
const CRL_SIGN: u16 = 1 << 6;

static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);

/// Whether a key has signed this. `false` as well for algorithms that are not known.
pub fn is_signed(
    key: &PublicKey<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let known = ALGORITHMS.all.iter().find(|known| {
        known.public_key_alg_id().as_ref() == key.algorithm.content
            && known.signature_alg_id().as_ref() == algorithm.content
    });
    known.is_some_and(|known| known.verify_signature(key.key, message, signature).is_ok())
}

impl Bundle {
    /// Whether each of its revocation lists is of one of these authorities: has its name, and is signed by its key, which may sign lists.
    ///
    /// # Errors
    /// The reason, for a human.
    pub fn is_of(&self, authorities: &Self) -> Result<(), String> {
        let authorities: Vec<_> =
            authorities.certificates.iter().filter_map(|der| Certificate::read(der)).collect();
        self.lists.iter().filter_map(|der| RevocationList::read(der)).try_for_each(|list| {
            let mut named =
                authorities.iter().filter(|authority| authority.subject == list.issuer).peekable();
            if named.peek().is_none() {
                return Err("a list is of none of these authorities".to_owned());
            }
            let has_signed = |authority: &Certificate<'_>| {
                let usage = authority.extensions.key_usage().ok().flatten();
                usage.is_none_or(|usage| usage & CRL_SIGN != 0)
                    && is_signed(&authority.public_key, &list.algorithm, list.signed, list.signature)
            };
            if named.any(has_signed) {
                return Ok(());
            }
            if ALGORITHMS.all.iter().all(|known| known.signature_alg_id().as_ref() != list.algorithm.content)
            {
                let algorithm = dotted(list.algorithm.oid);
                return Err(format!("a list is signed by {algorithm}, which is not verified here"));
            }
            Err("a list has the name of an authority that has not signed it".to_owned())
        })
    }
}
