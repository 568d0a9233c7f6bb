//! Certificates, kept beside the document that names them.
//!
//! One that the present document names is replaced as a document is: stored first, then the proxy is given the document again and reads
//! the file anew; what it refuses is taken back. One that nothing names is only stored. So what is served is durable, and a disk that fails
//! before the proxy is asked changes nothing; what is left to do on it afterwards is done by and by ([`Amphora::settle`]).

use std::{collections::BTreeMap, sync::Arc};

use amphora_bundle::{Bundle, Description, Kind};
use amphora_ipc::proxy::{Fault, Refusal, Remark};
use amphora_model::{CertificateId, CertificateRole, CertificateUse, LoadBalancer};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::{Amphora, detached, internal, settle::Verdict};
use crate::{
    change_error::ChangeError,
    store::{Slot, Staged, Store},
};

/// The most certificates of an amphora.
const MAX_CERTIFICATES: usize = 2000;

/// The most bytes that they may have together, as they are kept: the proxy has those that are named in memory. What is told of them,
/// which the agent has in memory, is bounded for each ([`amphora_bundle::MAX_DESCRIPTION`]).
const MAX_BYTES: usize = 64 << 20;

/// What is known of the certificates that are stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificates {
    stored: BTreeMap<CertificateId, Stored>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Of the file.
    bytes: usize,
    /// Why it cannot be used, when it cannot: it is as good as not there for documents, and there to be replaced or deleted.
    known: Result<Known, Arc<str>>,
}

#[derive(Clone, Debug)]
struct Known {
    kind: Kind,
    expiry: Option<i64>,
    description: Arc<Description>,
}

impl Stored {
    /// `bytes` is the size of its file.
    pub(super) fn of(bundle: &Bundle, bytes: usize) -> Self {
        let (kind, expiry) = (bundle.kind(), bundle.expiry());
        Self { bytes, known: Ok(Known { kind, expiry, description: bundle.describe().into() }) }
    }

    /// Reads one of the files, wherever that leads. Blocks on the disk.
    fn read(store: &Store, id: &CertificateId) -> Self {
        let (bytes, fault) = match store.read_certificate(id) {
            Ok(text) => match Bundle::from_pem(&text) {
                Ok(bundle) => return Self::of(&bundle, text.len()),
                Err(reason) => (text.len(), format!("the stored file {reason}")),
            },
            Err(error) => (0, format!("the stored file cannot be read: {error}")),
        };
        tracing::error!(%id, %fault, "a stored certificate is not usable");
        Self { bytes, known: Err(fault.into()) }
    }
}

/// What is told of a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateStatus {
    id: String,
    /// Why it cannot be used; then nothing can be told of what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Arc<str>>,
    #[serde(flatten)]
    description: Option<Arc<Description>>,
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
    /// What of that load balancer is honoured in part now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

impl Certificates {
    /// Reads what is stored. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be said what is there.
    pub(super) fn read(store: &Store) -> std::io::Result<Self> {
        let ids = store.certificates()?.into_iter();
        Ok(Self { stored: ids.map(|id| (id.clone(), Stored::read(store, &id))).collect() })
    }

    /// Whether there is one of this id that can be used.
    pub(super) fn has(&self, id: &CertificateId) -> bool {
        self.stored.get(id).is_some_and(|stored| stored.known.is_ok())
    }

    /// Every id.
    pub(super) fn ids(&self) -> Vec<CertificateId> {
        self.stored.keys().cloned().collect()
    }

    /// Adds or replaces one.
    pub(super) fn insert(&mut self, id: CertificateId, stored: Stored) {
        self.stored.insert(id, stored);
    }

    /// Takes one away.
    pub(super) fn remove(&mut self, id: &CertificateId) {
        self.stored.remove(id);
    }

    /// Whether there is room for another certificate, or for another of this id.
    pub(super) fn has_room(&self, id: &CertificateId, bytes: usize) -> Result<(), ChangeError> {
        let full = |what: String| {
            let reason = format!("there are {what} already; delete what is not needed");
            Err(ChangeError::Conflict(Refusal::one("certificate", reason)))
        };
        if !self.stored.contains_key(id) && self.stored.len() >= MAX_CERTIFICATES {
            return full(format!("{MAX_CERTIFICATES} certificates"));
        }
        let others: usize =
            self.stored.iter().filter(|(other, _)| *other != id).map(|(_, one)| one.bytes).sum();
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
            let reason = match self.stored.get(used.id).map(|stored| &stored.known) {
                None => format!("there is no certificate {}", used.id),
                Some(Err(fault)) => format!("certificate {} is not usable: {fault}", used.id),
                Some(Ok(known)) if known.kind == wanted(used.role) => continue,
                Some(Ok(known)) => mismatch(used.id, known.kind, used.role),
            };
            faults.push(Fault { path: used.path(), reason });
        }
        if faults.is_empty() { Ok(()) } else { Err(Refusal { faults }) }
    }
}

pub(super) fn wanted(role: CertificateRole) -> Kind {
    match role {
        CertificateRole::Identity => Kind::Identity,
        CertificateRole::Authorities => Kind::Authorities,
        CertificateRole::Revocations => Kind::Revocations,
    }
}

pub(super) fn mismatch(id: &CertificateId, kind: Kind, role: CertificateRole) -> String {
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
        let refused = |reason| ChangeError::Invalid(Refusal::one("certificate", reason));
        let read = move || {
            read().map(|bundle| {
                let text = bundle.to_pem();
                (bundle.kind(), Stored::of(&bundle, text.len()), text)
            })
        };
        let (kind, stored, text) = spawn_blocking(read).await.map_err(internal)?.map_err(refused)?;
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            this.settle(&mut state).await?;
            // Changed under the state's lock alone; told of as soon as it is known to be good.
            let mut certificates = this.certificates.borrow().clone();
            let model = this.model();
            let mut faults = Vec::new();
            let mut used = false;
            for place in uses(model.as_deref(), &id) {
                used = true;
                if wanted(place.role) != kind {
                    let reason = format!("needs {}; this is {}", wanted(place.role).phrase(), kind.phrase());
                    faults.push(Fault { path: place.path(), reason });
                }
            }
            if !faults.is_empty() {
                return Err(ChangeError::Invalid(Refusal { faults }));
            }
            certificates.has_room(&id, text.len())?;
            let name = id.clone();
            let stage = this.keeper.blocking(move |store| Ok(store.stage_certificate(&name, &text))).await?;
            let staged = match stage {
                Ok(staged) => staged,
                Err((error, left)) => {
                    if left != Staged::Unchanged {
                        state.unsettled.insert(id, Verdict::Refused(left));
                        this.diverged(&mut state);
                    }
                    return Err(ChangeError::Storage(error));
                }
            };
            certificates.stored.insert(id.clone(), stored);
            let lacks = |model: &Arc<LoadBalancer>| certificates.missing(model).is_err();
            // What lacks another certificate does not run: there is nothing that this could break.
            let serving = used && !model.as_ref().is_some_and(lacks);
            let mut remarks = Vec::new();
            if serving {
                match this.take_up(&mut state).await {
                    Ok(told) => remarks = told,
                    Err(error) => {
                        state.unsettled.insert(id, Verdict::Refused(staged));
                        this.settle(&mut state).await?;
                        return Err(error);
                    }
                }
            }
            this.certificates.send_replace(certificates);
            if staged == Staged::Replaced {
                state.unsettled.insert(id, Verdict::Taken);
                // It is stored and served: that what was before it stays for now changes neither, and is tried again.
                let _ = this.settle(&mut state).await;
            }
            Ok(CertificateChanged { changed: staged != Staged::Unchanged, serving, remarks })
        })
        .await
    }

    /// Gives the proxy the present document again, so that it reads the certificates anew; what is honoured in part then.
    async fn take_up(self: &Arc<Self>, state: &mut super::State) -> Result<Vec<Remark>, ChangeError> {
        let Some(document) = self.keeper.read(Slot::Current).await? else { return Ok(Vec::new()) };
        match self.proxy.apply(document).await {
            Ok(applied) => {
                if let Some(converged) = &mut state.converged {
                    converged.generation = applied.generation;
                }
                Ok(applied.remarks)
            }
            Err(error) => {
                if !error.is_refused() && !error.is_not_running() {
                    self.diverged(state);
                }
                Err(error.into())
            }
        }
    }

    /// Looks again at what is stored under an id, after it was taken back.
    pub(super) async fn read_again(self: &Arc<Self>, id: &CertificateId) -> Result<(), ChangeError> {
        let name = id.clone();
        let read = self.keeper.blocking(move |store| {
            Ok(store.certificates()?.contains(&name).then(|| Stored::read(store, &name)))
        });
        let stored = read.await?;
        self.certificates.send_modify(|certificates| match stored {
            Some(stored) => drop(certificates.stored.insert(id.clone(), stored)),
            None => drop(certificates.stored.remove(id)),
        });
        Ok(())
    }

    /// What may be told of a certificate.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn certificate(&self, id: &CertificateId) -> Result<CertificateStatus, ChangeError> {
        let certificates = self.certificates.borrow();
        let stored = certificates.stored.get(id).ok_or(ChangeError::NoCertificate)?;
        Ok(status_of(id, stored, self.model().as_deref()))
    }

    /// What may be told of all certificates.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let (certificates, model) = (self.certificates.borrow(), self.model());
        certificates.stored.iter().map(|(id, stored)| status_of(id, stored, model.as_deref())).collect()
    }

    /// Until when what is kept is good: id, kind, and seconds since 1970.
    pub fn certificates_expiry(&self) -> Vec<(String, &'static str, i64)> {
        let certificates = self.certificates.borrow();
        let known =
            certificates.stored.iter().filter_map(|(id, stored)| Some((id, stored.known.as_ref().ok()?)));
        known.filter_map(|(id, known)| Some((id.to_string(), known.kind.as_str(), known.expiry?))).collect()
    }

    /// What the present document names and is not there, or not usable: it cannot start again without.
    pub fn certificates_missing(&self) -> Vec<Fault> {
        let missing = |model: Arc<LoadBalancer>| self.certificates.borrow().missing(&model).err();
        self.model().and_then(missing).map(|refusal| refusal.faults).unwrap_or_default()
    }

    /// Forgets a certificate.
    ///
    /// # Errors
    /// There is none, or the present document names it.
    pub async fn delete_certificate(self: &Arc<Self>, id: CertificateId) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            this.settle(&mut state).await?;
            if !this.certificates.borrow().stored.contains_key(&id) {
                return Err(ChangeError::NoCertificate);
            }
            let model = this.model();
            let named = uses(model.as_deref(), &id);
            let faults: Vec<_> =
                named.map(|used| Fault { path: used.path(), reason: format!("names {id}") }).collect();
            if !faults.is_empty() {
                return Err(ChangeError::CertificateInUse(Refusal { faults }));
            }
            let name = id.clone();
            this.keeper.blocking(move |store| store.remove_certificate(&name)).await?;
            this.certificates.send_modify(|certificates| {
                certificates.stored.remove(&id);
            });
            Ok(())
        })
        .await
    }
}

/// The places of a load balancer that name a certificate.
fn uses<'m>(model: Option<&'m LoadBalancer>, id: &CertificateId) -> impl Iterator<Item = CertificateUse<'m>> {
    model.into_iter().flat_map(LoadBalancer::certificates).filter(move |used| used.id == id)
}

fn status_of(id: &CertificateId, stored: &Stored, model: Option<&LoadBalancer>) -> CertificateStatus {
    CertificateStatus {
        id: id.to_string(),
        fault: stored.known.as_ref().err().cloned(),
        description: stored.known.as_ref().ok().map(|known| known.description.clone()),
        used_by: uses(model, id).map(|used| used.path()).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_image_that_keeps_them_in_memory_has_room_for_all() {
        let unit = include_str!(
            "../../../images/units/certs-tmpfs/usr/lib/systemd/system/var-lib-octavia-certificates.mount"
        );
        let (_, size) = unit.split_once("size=").unwrap();
        let size: usize = size.split_once('M').unwrap().0.parse().unwrap();
        // Files take whole pages of 4 KiB, and one more of the largest is there while it replaces another.
        assert!(size << 20 >= MAX_BYTES + MAX_CERTIFICATES * 4096 + amphora_bundle::MAX_BYTES);
    }

    #[test]
    fn there_is_room_for_so_many_and_so_many_bytes() {
        let one = |bytes| Stored { bytes, known: Err("is of no matter".into()) };
        let id = |text: &str| text.parse::<CertificateId>().unwrap();
        let mut certificates = Certificates::default();
        certificates.stored.insert(id("a"), one(MAX_BYTES - 10));
        assert!(certificates.has_room(&id("b"), 10).is_ok());
        let refused = certificates.has_room(&id("b"), 11).unwrap_err().to_string();
        assert!(refused.contains("64 MiB"), "{refused}");
        // What is replaced makes room.
        assert!(certificates.has_room(&id("a"), MAX_BYTES).is_ok());
        (0..MAX_CERTIFICATES).for_each(|n| {
            certificates.stored.insert(id(&n.to_string()), one(0));
        });
        certificates.stored.remove(&id("a"));
        assert!(certificates.has_room(&id("7"), 1).is_ok());
        let refused = certificates.has_room(&id("b"), 1).unwrap_err().to_string();
        assert!(refused.contains("2000 certificates"), "{refused}");
    }
}
