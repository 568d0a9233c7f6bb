//! The files that certificates and keys come in.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use amphora_model::CertificateId;
use zeroize::Zeroizing;

use crate::tls::{Material, MaterialError, Pem};

/// The most bytes of a file: those that can be brought.
const MAX_BYTES: u64 = amphora_bundle::MAX_BYTES as u64;

/// A directory with a file `ID.pem` for each id.
#[derive(Clone, Debug)]
pub struct CertificateDirectory(pub Option<PathBuf>);

impl Material for CertificateDirectory {
    fn pem(&self, id: &CertificateId) -> Result<Pem, MaterialError> {
        let missing = || MaterialError::Missing(id.clone());
        // An id is as good as a file's name, and never one that leads elsewhere.
        let path = self.0.as_ref().ok_or_else(missing)?.join(format!("{id}.pem"));
        read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => MaterialError::Unreadable(id.clone(), error.to_string()),
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "on the thread that compiles, or before there is a runtime")]
fn read(path: &std::path::Path) -> io::Result<Pem> {
    let file = File::open(path)?;
    // With room for all of it, and for the read that finds its end: it does not grow out of that, and leaves nothing behind.
    let length = file.metadata()?.len().min(MAX_BYTES);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 32));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes.into())
}
