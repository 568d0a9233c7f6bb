//! From a text and the files that it names to a document and certificates.

use std::{borrow::Cow, net::IpAddr};

use amphora_bundle::{Bundle, Kind};
use amphora_ipc::proxy::{Fault, Refusal, Remark};
use amphora_model::{CertificateId, ListenerId, LoadBalancer, LoadBalancerId, Member, PoolId};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::{Streams, Unserved, merge};
use crate::{
    amphora::certificates::{Stored, mismatch, wanted},
    change_error::ChangeError,
    document,
    heartbeat::size,
    octavia::haproxy_cfg::{self, Certificates, Context, Everything, Lines},
    store::{FileName, Store},
};

/// What the ids of certificates begin with that texts name.
const PREFIX: &str = "octavia-";

/// A text, understood.
pub(super) struct Understood {
    /// What it means.
    pub(super) model: LoadBalancer,
    /// The same as the native API has it.
    pub(super) document: Bytes,
    /// What it names, each once.
    pub(super) certificates: Vec<Named>,
    /// Where it says what.
    pub(super) source: Source,
    /// Its backends.
    pub(super) backends: Vec<(PoolId, ListenerId)>,
    /// What of it was asked for and has no effect.
    pub(super) remarks: Vec<Remark>,
}

/// A text, and where it says what.
pub(super) struct Source {
    text: Bytes,
    lines: Lines,
}

impl Source {
    /// The same error, with the lines of the text in place of the document's paths.
    pub(super) fn told(&self, error: ChangeError) -> ChangeError {
        match error {
            ChangeError::Invalid(refusal) => ChangeError::Invalid(self.refusal(&refusal)),
            ChangeError::Conflict(refusal) => ChangeError::Conflict(self.refusal(&refusal)),
            error => error,
        }
    }

    fn refusal(&self, refusal: &Refusal) -> Refusal {
        let told = |found: &Fault| fault(self.lines.told(&self.text, found, None).to_string());
        Refusal { faults: refusal.faults.iter().map(told).collect() }
    }
}

/// Something that a text names.
pub(super) struct Named {
    /// By its content.
    pub(super) id: CertificateId,
    kind: Kind,
    /// What is known of it.
    pub(super) stored: Stored,
    /// What is stored.
    pub(super) pem: Zeroizing<Vec<u8>>,
}

/// Whether a certificate came with a text.
pub(super) fn is_of_octavia(id: &CertificateId) -> bool {
    id.as_str().starts_with(PREFIX)
}

/// The listeners and backends of a text, whatever it was sent with.
pub(super) fn streams(text: &[u8]) -> Result<Streams, String> {
    // Which address it is does not matter to who wants to know the listeners of a text that has none.
    let context = Context { certificates: &Everything, vips: &[IpAddr::from([192, 0, 2, 1])] };
    let translated = haproxy_cfg::translate(text, &context).map_err(|fault| fault.to_string())?;
    let remarks = told(&translated.remarks);
    Ok(Streams { listeners: translated.load_balancer.listeners, backends: translated.backends, remarks })
}

/// As the status has it.
fn told(remarks: &[haproxy_cfg::Remark]) -> Vec<Remark> {
    let asked_for = remarks.iter().filter(|remark| remark.is_asked_for);
    let told = |remark: &haproxy_cfg::Remark| Remark {
        path: "haproxy.cfg".to_owned(),
        text: format!("line {}: {}", remark.line, remark.reason),
    };
    asked_for.map(told).collect()
}

/// Reads a text, and the files that it names, for what runs at `present`. Its heartbeats have to fit a datagram together with what other
/// texts have in `fit_with`, if that is to be looked at. Blocks on the disk.
///
/// # Errors
/// When it cannot be honoured; the place is the line.
pub(super) fn understand(
    store: &Store,
    id: LoadBalancerId,
    text: Bytes,
    vips: &[IpAddr],
    present: Option<&LoadBalancer>,
    fit_with: Option<Unserved>,
) -> Result<Understood, ChangeError> {
    let files = Files { store, id };
    let translated = haproxy_cfg::translate(&text, &Context { certificates: &files, vips });
    let translated = translated.map_err(|fault| refused("", fault.to_string()))?;
    for haproxy_cfg::Remark { line, reason, is_asked_for } in &translated.remarks {
        match is_asked_for {
            true => tracing::warn!(%id, line, reason, "a part of the text has no effect"),
            false => tracing::debug!(%id, line, reason, "a part of the text has no effect"),
        }
    }
    let (mut model, source) = (translated.load_balancer, Source { text, lines: translated.lines });
    let (backends, remarks) = (translated.backends, told(&translated.remarks));
    if model.id != id {
        return Err(refused("", format!("the text is of load balancer {}, the request of {id}", model.id)));
    }
    let certificates = files.take(&mut model).map_err(|error| source.told(error))?;
    let present = present.filter(|present| present.id == id);
    let model =
        merge::with_streams(present, model).map_err(|reason| refused("", format!("the text {reason}")))?;
    if let Some(mut unserved) = fit_with {
        unserved.backends.clone_from(&backends);
        let streams = model.pools.iter().filter(|pool| !pool.protocol.is_forwarded());
        let largest = streams.max_by_key(|pool| pool.members.len()).map(|pool| pool.id);
        fits(&model, &unserved, largest).map_err(|error| source.told(error))?;
    }
    let (model, document) = document_of(&model)?;
    Ok(Understood { model, document, certificates, source, backends, remarks })
}

/// Heartbeats have to have room for all, with members of which nothing but their ids is known. Where they have not, this pool is named.
pub(super) fn fits(
    model: &LoadBalancer,
    unserved: &Unserved,
    named: Option<PoolId>,
) -> Result<(), ChangeError> {
    let mut all = model.clone();
    let unknown = |id| Member {
        id,
        name: String::new(),
        admin_state_up: false,
        address: IpAddr::from([192, 0, 2, 1]),
        port: 1,
        weight: 1,
        backup: false,
        monitor_address: None,
        monitor_port: None,
    };
    for (pool, member) in &unserved.members {
        if let Some(pool) = all.pools.iter_mut().find(|one| one.id == *pool) {
            pool.members.push(unknown(*member));
        }
    }
    size::fits(&all, &unserved.backends).map_err(|reason| match named {
        Some(pool) => refused(&format!("loadbalancer.pools[{pool}]"), format!("pools and members {reason}")),
        None => refused("loadbalancer.pools", reason),
    })
}

/// A load balancer as it is stored, which is as it will be read after a boot.
pub(super) fn document_of(model: &LoadBalancer) -> Result<(LoadBalancer, Bytes), ChangeError> {
    let document = serde_json::to_vec(&model.to_json()).map_err(|e| ChangeError::Internal(e.to_string()))?;
    let model = document::parse(&document).map_err(ChangeError::Invalid)?;
    Ok((model, document.into()))
}

/// A text that cannot be honoured.
pub(super) fn refused(path: &str, reason: String) -> ChangeError {
    ChangeError::Invalid(Refusal::one(path, reason))
}

/// What was uploaded for one load balancer.
struct Files<'a> {
    store: &'a Store,
    id: LoadBalancerId,
}

impl Certificates for Files<'_> {
    fn has(&self, id: &CertificateId) -> bool {
        self.secret(id.as_str()).is_some()
    }

    fn crt_list(&self, listener: ListenerId) -> Option<Cow<'_, [u8]>> {
        self.read(&listener.to_string()).map(Cow::Owned)
    }
}

impl Files<'_> {
    /// The same of what may have a key in it.
    fn secret(&self, stem: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.read(stem).map(Zeroizing::new)
    }

    fn read(&self, stem: &str) -> Option<Vec<u8>> {
        let name = FileName::new(&format!("{stem}.pem"))?;
        self.store.read_upload(self.id, &name).unwrap_or_else(|error| {
            tracing::error!(id = %self.id, file = name.as_str(), %error, "an uploaded file cannot be read");
            None
        })
    }

    /// What the model names by its files' names, named by its content.
    fn take(&self, model: &mut LoadBalancer) -> Result<Vec<Named>, ChangeError> {
        let mut certificates: Vec<Named> = Vec::new();
        // From the file's name to the id.
        let mut names: Vec<(CertificateId, CertificateId)> = Vec::new();
        let mut faults = Vec::new();
        for used in model.certificates() {
            let stem = used.id;
            let fault = |reason| Fault { path: used.path(), reason };
            if !names.iter().any(|(from, _)| from == stem) {
                let Some(text) = self.secret(stem.as_str()) else {
                    faults.push(fault(format!("{stem}.pem is not there")));
                    continue;
                };
                let named = match Bundle::from_pem(&text) {
                    Ok(bundle) => Named::of(&bundle)?,
                    Err(reason) => {
                        faults.push(fault(format!("{stem}.pem cannot be used: it {reason}")));
                        continue;
                    }
                };
                names.push((stem.clone(), named.id.clone()));
                if !certificates.iter().any(|known| known.id == named.id) {
                    certificates.push(named);
                }
            }
            let id = names.iter().find(|(from, _)| from == stem).map(|(_, to)| to);
            let kind = certificates.iter().find(|named| Some(&named.id) == id).map(|named| named.kind);
            if let Some(kind) = kind.filter(|kind| *kind != wanted(used.role)) {
                faults.push(fault(mismatch(stem, kind, used.role)));
            }
        }
        if !faults.is_empty() {
            return Err(ChangeError::Invalid(Refusal { faults }));
        }
        for id in model.certificates_mut() {
            if let Some((_, to)) = names.iter().find(|(from, _)| from == id) {
                *id = to.clone();
            }
        }
        Ok(certificates)
    }
}

fn fault(reason: String) -> Fault {
    Fault { path: String::new(), reason }
}

impl Named {
    fn of(bundle: &Bundle) -> Result<Self, ChangeError> {
        let pem = bundle.to_pem();
        let digest = HEXLOWER.encode(digest(&SHA256, &pem).as_ref());
        let id = format!("{PREFIX}{digest}").parse();
        let id = id.map_err(|error| ChangeError::Internal(format!("{error}")))?;
        Ok(Self { id, kind: bundle.kind(), stored: Stored::of(bundle, pem.len()), pem })
    }
}
