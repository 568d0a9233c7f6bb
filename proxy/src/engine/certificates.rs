//! The files that certificates and keys come in.

use std::{io, path::PathBuf};

use amphora_model::CertificateId;

use crate::tls::{Material, MaterialError, Pem};

/// A directory with a file `ID.pem` for each id.
#[derive(Clone, Debug)]
pub struct CertificateDirectory(pub Option<PathBuf>);

impl Material for CertificateDirectory {
    fn pem(&self, id: &CertificateId) -> Result<Pem, MaterialError> {
        let missing = || MaterialError::Missing(id.clone());
        // An id is as good as a file's name, and never one that leads elsewhere.
        let path = self.0.as_ref().ok_or_else(missing)?.join(format!("{id}.pem"));
        amphora_bundle::read_file(&path).map(Into::into).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => MaterialError::Unreadable(id.clone(), error.to_string()),
        })
    }
}
