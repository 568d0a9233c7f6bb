//! What the names of a text's files stand for.

use std::borrow::Cow;

use amphora_model::{CertificateId, ListenerId, LoadBalancerId};

use super::{Certificates, Context, Fault, crt_list, tls::File, words::Place};

/// Whatever a text names is there, and a crt-list names one certificate, that of the listener's id: for those who want to see what a text
/// says without what it was sent with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everything;

impl Certificates for Everything {
    fn has(&self, _: &CertificateId) -> bool {
        true
    }

    fn crt_list(&self, listener: ListenerId) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Owned(format!("/-/-/{listener}.pem\n").into_bytes()))
    }
}

/// Names of one text.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    /// Whose text it is.
    pub(super) id: LoadBalancerId,
    /// What is known beside it.
    pub(super) context: Context<'a>,
}

impl Names<'_> {
    /// What a path of the text names.
    pub(super) fn resolve(&self, file: &File, place: Place<'_>) -> Result<CertificateId, Fault> {
        if file.directory.parse() != Ok(self.id) {
            return Err(place.fault(format!("names a file of another load balancer, {}", file.directory)));
        }
        self.certificate(file, &|reason| place.fault(reason))
    }

    /// What a listener's crt-list names.
    pub(super) fn crt_list(
        &self,
        file: &File,
        listener: ListenerId,
        place: Place<'_>,
    ) -> Result<Vec<CertificateId>, Fault> {
        if file.directory.parse() != Ok(self.id) || file.stem.parse() != Ok(listener) {
            return Err(place.fault(format!("names a crt-list that is not {}/{listener}.pem", self.id)));
        }
        let list = self.context.certificates.crt_list(listener);
        let list = list.ok_or_else(|| place.fault(format!("names {}.pem, which is not there", file.stem)))?;
        let files = crt_list::read(&list).map_err(|(line, reason)| match line {
            0 => place.fault(format!("names a crt-list that {reason}")),
            line => place.fault(format!("names a crt-list whose line {line} {reason}")),
        })?;
        let certificate =
            |file| self.certificate(file, &|reason| place.fault(format!("names a crt-list that {reason}")));
        files.iter().map(certificate).collect()
    }

    fn certificate(&self, file: &File, fault: &dyn Fn(String) -> Fault) -> Result<CertificateId, Fault> {
        let id: CertificateId = file
            .stem
            .parse()
            .map_err(|_| fault(format!("names {}.pem, which is no certificate's name", file.stem)))?;
        match self.context.certificates.has(&id) {
            true => Ok(id),
            false => Err(fault(format!("names {id}.pem, which is not there"))),
        }
    }
}
