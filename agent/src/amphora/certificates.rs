//! Certificates, kept beside the document that names them.
//!
//! One that the present document names is replaced as a document is: stored first, then the proxy is given the document again and reads
//! the file anew; what it refuses is taken back. One that nothing names is only stored.

use std::{collections::BTreeMap, sync::Arc};

use amphora_bundle::{Bundle, Description, Kind};
use amphora_ipc::proxy::{Fault, Refusal};
use amphora_model::{CertificateId, CertificateRole, LoadBalancer};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::{Amphora, detached, internal};
use crate::{
    change_error::ChangeError,
    store::{Slot, Staged, Store},
};

/// The most certificates of an amphora.
const MAX_CERTIFICATES: usize = 2000;

/// The most bytes that they may have together, as they are kept: what is known of them is kept in memory.
const MAX_BYTES: usize = 64 << 20;

/// What is known of the certificates that are stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificates {
    known: BTreeMap<CertificateId, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    kind: Kind,
    expiry: Option<i64>,
    /// Of the file.
    bytes: usize,
    description: Arc<Description>,
}

impl Known {
    /// `bytes` is the size of its file.
    fn of(bundle: &Bundle, bytes: usize) -> Self {
        Self { kind: bundle.kind(), expiry: bundle.expiry(), bytes, description: bundle.describe().into() }
    }
}

/// What is told of a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateStatus {
    id: String,
    #[serde(flatten)]
    description: Description,
    /// The places of the present document that name it.
    used_by: Vec<String>,
}

/// What a change has come to.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateChanged {
    /// Whether something else was stored before.
    pub changed: bool,
    /// Whether the load balancer that names it runs with it; false when none does, or it still lacks another certificate.
    pub serving: bool,
}

impl Certificates {
    /// Reads what is stored. What cannot be used is told, and as good as not there. Blocks on the disk.
    pub(super) fn read(store: &Store) -> std::io::Result<Self> {
        let mut known = BTreeMap::new();
        for (id, text) in store.certificates()? {
            match Bundle::from_pem(&text) {
                Ok(bundle) => {
                    known.insert(id, Known::of(&bundle, text.len()));
                }
                Err(reason) => tracing::error!(%id, "a stored certificate is not usable: it {reason}"),
            }
        }
        Ok(Self { known })
    }

    /// Whether there is room for another certificate, or for another of this id.
    fn has_room(&self, id: &CertificateId, bytes: usize) -> Result<(), ChangeError> {
        let full = |what: String| {
            let reason = format!("there are {what} already; delete what is not needed");
            Err(ChangeError::Conflict(Refusal::one("", reason)))
        };
        if !self.known.contains_key(id) && self.known.len() >= MAX_CERTIFICATES {
            return full(format!("{MAX_CERTIFICATES} certificates"));
        }
        let others: usize =
            self.known.iter().filter(|(other, _)| *other != id).map(|(_, one)| one.bytes).sum();
        if others + bytes > MAX_BYTES {
            return full(format!("certificates of {} MiB, or nearly so,", MAX_BYTES >> 20));
        }
        Ok(())
    }

    /// What keeps a load balancer from having all that it names.
    ///
    /// # Errors
    /// A fault for each of them.
    pub(super) fn missing(&self, model: &LoadBalancer) -> Result<(), Refusal> {
        let mut faults = Vec::new();
        for used in model.certificates() {
            let reason = match self.known.get(used.id) {
                None => format!("there is no certificate {}", used.id),
                Some(known) if known.kind == wanted(used.role) => continue,
                Some(known) => mismatch(used.id, known.kind, used.role),
            };
            faults.push(Fault { path: used.path(), reason });
        }
        if faults.is_empty() { Ok(()) } else { Err(Refusal { faults }) }
    }
}

fn wanted(role: CertificateRole) -> Kind {
    match role {
        CertificateRole::Identity => Kind::Identity,
        CertificateRole::Authorities => Kind::Authorities,
        CertificateRole::Revocations => Kind::Revocations,
    }
}

fn mismatch(id: &CertificateId, kind: Kind, role: CertificateRole) -> String {
    format!("needs {}; {id} has {}", wanted(role).phrase(), kind.phrase())
}

impl Amphora {
    /// Stores a certificate, and answers once every worker of the proxy serves it, if the present document names it.
    ///
    /// # Errors
    /// When what was there before is there.
    pub async fn put_certificate(
        self: &Arc<Self>,
        id: CertificateId,
        read: impl FnOnce() -> Result<Bundle, String> + Send + 'static,
    ) -> Result<CertificateChanged, ChangeError> {
        let refused = |reason| ChangeError::Invalid(Refusal::one("", reason));
        let read = move || {
            read().map(|bundle| {
                let text = bundle.to_pem();
                (Known::of(&bundle, text.len()), text)
            })
        };
        let (known, text) = spawn_blocking(read).await.map_err(internal)?.map_err(refused)?;
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            // Changed under the state's lock alone; told of as soon as it is known to be good.
            let mut certificates = this.certificates.borrow().clone();
            let model = this.model();
            let uses = model.as_ref().map(|model| model.certificates().filter(|used| *used.id == id));
            let mut faults = Vec::new();
            let mut used = false;
            for place in uses.into_iter().flatten() {
                used = true;
                if wanted(place.role) != known.kind {
                    let reason =
                        format!("needs {}; this is {}", wanted(place.role).phrase(), known.kind.phrase());
                    faults.push(Fault { path: place.path(), reason });
                }
            }
            if !faults.is_empty() {
                return Err(ChangeError::Invalid(Refusal { faults }));
            }
            certificates.has_room(&id, text.len())?;
            let name = id.clone();
            let staged = this.keeper.blocking(move |store| store.stage_certificate(&name, &text)).await?;
            certificates.known.insert(id.clone(), known);
            let lacks = |model: &Arc<LoadBalancer>| certificates.missing(model).is_err();
            // What lacks another certificate does not run: there is nothing that this could break.
            let serving = used && !model.as_ref().is_some_and(lacks);
            if serving && let Err(error) = this.take_up(&mut state).await {
                let unstaged =
                    this.keeper.blocking(move |store| store.unstage_certificate(&id, staged)).await;
                if unstaged.is_err() {
                    this.diverged(&mut state);
                }
                return Err(unstaged.err().unwrap_or(error));
            }
            this.certificates.send_replace(certificates);
            if staged == Staged::Replaced
                && let Err(error) = this.keeper.blocking(move |store| store.keep_certificate(&id)).await
            {
                // What was before is still beside it, and comes back with the next start.
                this.diverged(&mut state);
                return Err(error);
            }
            Ok(CertificateChanged { changed: staged != Staged::Unchanged, serving })
        })
        .await
    }

    /// Gives the proxy the present document again, so that it reads the certificates anew.
    async fn take_up(self: &Arc<Self>, state: &mut super::State) -> Result<(), ChangeError> {
        let Some(document) = self.keeper.read(Slot::Current).await? else { return Ok(()) };
        match self.proxy.apply(document).await {
            Ok(applied) => {
                if let Some(converged) = &mut state.converged {
                    converged.generation = applied.generation;
                }
                Ok(())
            }
            Err(error) => {
                if !error.is_refused() && !error.is_not_running() {
                    self.diverged(state);
                }
                Err(error.into())
            }
        }
    }

    /// What may be told of a certificate.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn certificate(&self, id: &CertificateId) -> Result<CertificateStatus, ChangeError> {
        let certificates = self.certificates.borrow();
        let known = certificates.known.get(id).ok_or(ChangeError::NoCertificate)?;
        Ok(self.status_of(id, known))
    }

    /// What may be told of all certificates.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let certificates = self.certificates.borrow();
        certificates.known.iter().map(|(id, known)| self.status_of(id, known)).collect()
    }

    /// Until when what is kept is good: id, kind, and seconds since 1970.
    pub fn certificates_expiry(&self) -> Vec<(String, &'static str, i64)> {
        let certificates = self.certificates.borrow();
        let known = certificates.known.iter();
        known.filter_map(|(id, known)| Some((id.to_string(), known.kind.as_str(), known.expiry?))).collect()
    }

    fn status_of(&self, id: &CertificateId, known: &Known) -> CertificateStatus {
        let model = self.model();
        let uses = model.iter().flat_map(|model| model.certificates());
        CertificateStatus {
            id: id.to_string(),
            description: Description::clone(&known.description),
            used_by: uses.filter(|used| used.id == id).map(|used| used.path()).collect(),
        }
    }

    /// Forgets a certificate.
    ///
    /// # Errors
    /// There is none, or the present document names it.
    pub async fn delete_certificate(self: &Arc<Self>, id: CertificateId) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let _state = this.state.lock().await;
            if !this.certificates.borrow().known.contains_key(&id) {
                return Err(ChangeError::NoCertificate);
            }
            let model = this.model();
            let uses = model.iter().flat_map(|model| model.certificates()).filter(|used| *used.id == id);
            let faults: Vec<_> =
                uses.map(|used| Fault { path: used.path(), reason: format!("names {id}") }).collect();
            if !faults.is_empty() {
                return Err(ChangeError::CertificateInUse(Refusal { faults }));
            }
            let name = id.clone();
            this.keeper.blocking(move |store| store.remove_certificate(&name)).await?;
            this.certificates.send_modify(|certificates| {
                certificates.known.remove(&id);
            });
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_so_many_bytes() {
        let one = |bytes| Known {
            kind: Kind::Authorities,
            expiry: None,
            bytes,
            description: Description {
                kind: Kind::Authorities.as_str(),
                certificates: Vec::new(),
                revocation_lists: Vec::new(),
            }
            .into(),
        };
        let id = |text: &str| text.parse::<CertificateId>().unwrap();
        let mut certificates = Certificates::default();
        certificates.known.insert(id("a"), one(MAX_BYTES - 10));
        assert!(certificates.has_room(&id("b"), 10).is_ok());
        let refused = certificates.has_room(&id("b"), 11).unwrap_err().to_string();
        assert!(refused.contains("64 MiB"), "{refused}");
        // What is replaced makes room.
        assert!(certificates.has_room(&id("a"), MAX_BYTES).is_ok());
        (0..MAX_CERTIFICATES).for_each(|n| {
            certificates.known.insert(id(&n.to_string()), one(0));
        });
        certificates.known.remove(&id("a"));
        assert!(certificates.has_room(&id("7"), 1).is_ok());
        let refused = certificates.has_room(&id("b"), 1).unwrap_err().to_string();
        assert!(refused.contains("2000 certificates"), "{refused}");
    }
}
