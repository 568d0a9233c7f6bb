//! What a document names and does not contain: keys, certificates, authorities, revocations.

use std::sync::Arc;

use amphora_model::CertificateId;
use zeroize::Zeroizing;

/// What there is of an id. There may be a key in it: nothing of it is left when the last that has it is done.
pub type Pem = Arc<Zeroizing<Vec<u8>>>;

/// Where what a [`CertificateId`] names is to be had. Asked while a load balancer is compiled, on a thread that may wait.
pub trait Material {
    /// The bytes that the id names: PEM, or a revocation list in DER.
    ///
    /// # Errors
    /// There are none, or they cannot be had.
    fn pem(&self, id: &CertificateId) -> Result<Pem, MaterialError>;
}

/// Why there is no material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// Nothing has this id.
    #[error("there is no certificate {0}")]
    Missing(CertificateId),
    /// It is there and cannot be read.
    #[error("the certificate {0} cannot be read: {1}")]
    Unreadable(CertificateId, String),
}

/// No material at all.
#[derive(Clone, Copy, Debug)]
pub struct NoMaterial;

impl Material for NoMaterial {
    fn pem(&self, id: &CertificateId) -> Result<Pem, MaterialError> {
        Err(MaterialError::Missing(id.clone()))
    }
}
