//! The listener with TLS, and its certificate, which is replaced again and again.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use amphora_benches::{
    Result,
    control::Control,
    exchange::Exchange,
    histogram::Histogram,
    load::{self, Target},
    tls::{Identities, Key, Offer},
};
use rustls::ClientConfig;

use crate::plan::Plan;

/// The id of the certificate.
const ID: &str = "bench";

/// What the first listener needs to terminate TLS.
pub(crate) struct Encrypted {
    identities: Identities,
    directory: PathBuf,
}

impl Encrypted {
    /// Makes a certificate, and of the first listener one that has it.
    pub(crate) fn new(dir: &Path, plan: &mut Plan) -> Result<Self> {
        let this = Self { identities: Identities::new()?, directory: dir.join("certificates") };
        fs::create_dir_all(&this.directory)?;
        this.put(this.identities.pem(Key::Ecdsa))?;
        let listener = &mut plan.document.loadbalancer.listeners[0];
        listener.protocol = "TERMINATED_HTTPS";
        listener.default_tls_container_ref = Some(ID.to_owned());
        Ok(this)
    }

    /// Where the certificate is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// As who replaces one does: a reader finds the old file or the new one.
    fn put(&self, pem: &str) -> Result<()> {
        let (file, new) = (self.directory.join(ID).with_extension("pem"), self.directory.join("new"));
        fs::write(&new, pem)?;
        Ok(fs::rename(new, file)?)
    }

    /// Clients that verify what they are shown, whichever of the authority's certificates it is; `None` without TLS.
    pub(crate) fn http1(this: Option<&Self>) -> Result<Option<Arc<ClientConfig>>> {
        this.map(|this| this.identities.strict_client(Offer::Http1)).transpose()
    }

    /// The same for HTTP/2.
    pub(crate) fn http2(&self, address: SocketAddr) -> Result<Target> {
        Ok(Target { tls: Some(self.identities.strict_client(Offer::Http2)?), ..address.into() })
    }

    /// Replaces the certificate `times` times: a new file, and the same document again. The next client is shown the new
    /// one.
    pub(crate) fn replace_all(
        &self,
        times: usize,
        interval: u64,
        control: &Control,
        plan: &Plan,
        target: &Target,
        apply: &mut Histogram,
    ) -> Result<()> {
        let document = plan.document.to_json();
        for n in 1..=times {
            let (pem, certificate) = self.identities.renewed()?;
            self.put(&pem)?;
            let started = Instant::now();
            if !control.apply(&document)?.changed {
                return Err(format!("replacement {n}: it was taken for no change").into());
            }
            apply.record(started.elapsed());
            let shown = load::once(target, &Exchange::http(1, false))?;
            if shown.certificate() != Some(&certificate) {
                return Err(format!("replacement {n}: a client is shown another certificate").into());
            }
            thread::sleep(Duration::from_millis(interval));
        }
        Ok(())
    }
}
