//! The load balancer as Octavia's controller brings it: files, and a text that names them, uploaded first and taken up then.
//!
//! What a text means is stored and applied as a document, as if it had come by the native API, and what it names under ids of the
//! content: so a file that is replaced or deleted, which the controller does before it sends the next text, takes nothing away from
//! what runs, and a boot needs neither text nor files.

mod datagrams;
mod merge;
mod understand;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use amphora_ipc::{
    client::ControlError,
    proxy::{Applied, Checked, Remark},
};
use amphora_model::{
    CertificateId, Listener, ListenerId, ListenerProtocol, LoadBalancer, LoadBalancerId, PoolId,
};
use bytes::Bytes;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

pub use self::datagrams::Unserved;
pub(super) use self::merge::is_of_parts;
use self::{
    datagrams::Datagrams,
    understand::{Named, Understood, is_of_octavia, understand},
};
use super::{Amphora, Present, State, certificates::Stored, detached, internal, settle::Verdict, wipe};
use crate::{
    change_error::ChangeError,
    document,
    keeper::NotReplaced,
    store::{FileName, Slot, Staged, Store},
};

/// The texts that were uploaded last.
#[derive(Clone, Debug)]
pub(super) struct Text {
    id: LoadBalancerId,
    /// haproxy.cfg, if there is one.
    streams: Option<Streams>,
    /// One of each listener of datagrams.
    datagrams: BTreeMap<ListenerId, Datagrams>,
}

/// What haproxy.cfg has.
#[derive(Clone, Debug, Default)]
struct Streams {
    listeners: Vec<Listener>,
    backends: Vec<(PoolId, ListenerId)>,
    remarks: Vec<Remark>,
}

impl Text {
    fn new(id: LoadBalancerId) -> Self {
        Self { id, streams: None, datagrams: BTreeMap::new() }
    }

    fn is_empty(&self) -> bool {
        self.streams.is_none() && self.datagrams.is_empty()
    }

    /// Takes up what is stored. Blocks on the disk.
    pub(super) fn read(store: &Store) -> std::io::Result<Option<Self>> {
        let Some(texts) = store.read_texts()? else { return Ok(None) };
        let mut all = Self::new(texts.id);
        all.streams = texts.streams.map(|text| {
            understand::streams(&text).unwrap_or_else(|reason| {
                tracing::error!(id = %texts.id, reason, "the stored text of the load balancer is not understood");
                Streams::default()
            })
        });
        for (listener, text) in texts.datagrams {
            match Datagrams::read(&text) {
                Ok(datagrams) => drop(all.datagrams.insert(listener, datagrams)),
                Err(reason) => {
                    tracing::error!(%listener, reason, "the stored text of a listener is not understood");
                }
            }
        }
        Ok(Some(all))
    }
}

/// A listener that there is.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: ListenerId,
    /// What Octavia's agent calls it.
    pub kind: &'static str,
    /// Whether it is one of what runs.
    pub runs: bool,
}

/// What became of a text.
#[derive(Clone, Debug)]
pub struct Started {
    /// What the proxy says.
    pub applied: Applied,
    /// Whether the load balancer ran before.
    pub ran: bool,
}

impl Amphora {
    /// The listeners of the load balancer, whatever brought it.
    pub fn listeners(&self) -> Vec<Listed> {
        let running = self.model().map(|model| model.listeners.clone()).unwrap_or_default();
        let runs = |id: ListenerId| running.iter().any(|one| one.id == id);
        let listed = |listener: &Listener| Listed {
            id: listener.id,
            kind: match listener.protocol {
                _ if listener.tls.is_some() => "TERMINATED_HTTPS",
                ListenerProtocol::Tcp | ListenerProtocol::Https => "TCP",
                // As Octavia's agent calls all of keepalived's.
                ListenerProtocol::Udp | ListenerProtocol::Sctp => "UDP",
                _ => "HTTP",
            },
            runs: runs(listener.id),
        };
        match &*self.text.borrow() {
            Some(text) => {
                let datagrams =
                    text.datagrams.keys().map(|id| Listed { id: *id, kind: "UDP", runs: runs(*id) });
                text.streams
                    .iter()
                    .flat_map(|streams| &streams.listeners)
                    .map(listed)
                    .chain(datagrams)
                    .collect()
            }
            None => running.iter().map(listed).collect(),
        }
    }

    /// What a tenant has asked for in haproxy.cfg and has no effect.
    pub fn text_remarks(&self) -> Vec<Remark> {
        let text = self.text.borrow();
        let streams = text.iter().filter_map(|text| text.streams.as_ref());
        streams.flat_map(|streams| &streams.remarks).cloned().collect()
    }

    /// A text that was uploaded, as it came.
    ///
    /// # Errors
    /// [`ChangeError::NoLoadBalancer`] when there is none of this id.
    pub async fn text(&self, id: LoadBalancerId) -> Result<Vec<u8>, ChangeError> {
        let text = self.keeper.blocking(move |store| store.read_text(id)).await?;
        text.ok_or(ChangeError::NoLoadBalancer)
    }

    /// Reads a text, and keeps it for the next [`start`](Self::start). `vips` are the addresses of the load balancer, which a text
    /// without listeners does not name.
    ///
    /// # Errors
    /// When the text before is kept.
    pub async fn put_text(
        self: &Arc<Self>,
        id: LoadBalancerId,
        text: Bytes,
        vips: Vec<IpAddr>,
    ) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            this.expect_octavias(id, true)?;
            let mut understood = this.understand(id, text.clone(), vips).await?;
            let backends = std::mem::take(&mut understood.backends);
            let remarks = std::mem::take(&mut understood.remarks);
            let mut listeners = this.check(&mut state, understood).await?.listeners;
            this.keeper.blocking(move |store| store.write_text(id, &text)).await?;
            listeners.retain(|listener| !listener.protocol.is_forwarded());
            this.text.send_modify(|present| {
                present.get_or_insert_with(|| Text::new(id)).streams =
                    Some(Streams { listeners, backends, remarks });
            });
            Ok(())
        })
        .await
    }

    /// Makes run what was uploaded.
    ///
    /// # Errors
    /// When what ran before runs on.
    pub async fn start(
        self: &Arc<Self>,
        id: LoadBalancerId,
        vips: Vec<IpAddr>,
    ) -> Result<Started, ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            this.expect_octavias(id, false)?;
            let text = this.text(id).await?;
            // The files that it names may be others by now.
            let understood = this.understand(id, text.into(), vips).await?;
            let Understood { model, document, certificates, source, .. } = understood;
            this.settle(&mut state).await?;
            this.keep_all_for_octavia(&mut state, certificates).await?;
            let ran = this.model().is_some_and(|model| merge::has_streams(&model));
            let applied = this.replace(&mut state, model, document).await;
            this.forget_unnamed(None).await;
            Ok(Started { applied: applied.map_err(|error| source.told(error))?, ran })
        })
        .await
    }

    /// Stops the load balancer until it is [started](Self::start), and keeps its text.
    ///
    /// # Errors
    /// When it runs on.
    pub async fn stop(self: &Arc<Self>, id: LoadBalancerId) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            this.expect_octavias(id, false)?;
            this.expect_streams()?;
            this.end_streams(&mut state).await
        })
        .await
    }

    /// Stops the load balancer and forgets it, its text and its files; one that there is not is as good as forgotten.
    ///
    /// # Errors
    /// When it is there still.
    pub async fn delete_text(self: &Arc<Self>, id: LoadBalancerId) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            match this.expect_octavias(id, false) {
                Ok(()) => {
                    this.end_streams(&mut state).await?;
                    this.keeper.blocking(move |store| store.remove_text(id)).await?;
                    this.text.send_modify(|present| {
                        if let Some(text) = present {
                            text.streams = None;
                        }
                        *present = present.take().filter(|text| !text.is_empty());
                    });
                    this.forget_unnamed(None).await;
                    Ok(())
                }
                Err(ChangeError::NoLoadBalancer) => {
                    this.keeper.blocking(move |store| store.remove_text(id)).await
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// A file that was uploaded for a load balancer, as it came.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub async fn upload(&self, id: LoadBalancerId, name: FileName) -> Result<Option<Vec<u8>>, ChangeError> {
        self.keeper.blocking(move |store| store.read_upload(id, &name)).await
    }

    /// Keeps a file for a load balancer.
    ///
    /// # Errors
    /// When the one before is kept.
    pub async fn put_upload(
        self: &Arc<Self>,
        id: LoadBalancerId,
        name: FileName,
        content: Bytes,
    ) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let _state = this.state.lock().await;
            let write = move |store: &Store| {
                let written = store.write_upload(id, &name, &content);
                // There may be a key in it.
                wipe(content);
                written
            };
            this.keeper.blocking(write).await
        })
        .await
    }

    /// Forgets a file of a load balancer.
    ///
    /// # Errors
    /// When it stays.
    pub async fn delete_upload(
        self: &Arc<Self>,
        id: LoadBalancerId,
        name: FileName,
    ) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let _state = this.state.lock().await;
            this.keeper.blocking(move |store| store.remove_upload(id, &name)).await
        })
        .await
    }

    /// The load balancer is not one that Octavia has brought, which alone changes it.
    pub(super) fn expect_not_octavias(&self) -> Result<(), ChangeError> {
        match &*self.text.borrow() {
            Some(text) => Err(ChangeError::OtherApi { id: text.id, path: "/1.0" }),
            None => Ok(()),
        }
    }

    /// The load balancer is this one, and Octavia has brought it; where it may be `new`, there may be none.
    fn expect_octavias(&self, id: LoadBalancerId, new: bool) -> Result<(), ChangeError> {
        let text = self.text.borrow().as_ref().map(|text| text.id);
        match (text, self.model().map(|model| model.id)) {
            (Some(present), _) if present == id => Ok(()),
            (Some(present), _) if new => Err(ChangeError::OtherLoadBalancer(present)),
            (None, Some(present)) if present == id => Err(ChangeError::OtherApi { id, path: "/2.0" }),
            (None, Some(present)) if new => Err(ChangeError::OtherLoadBalancer(present)),
            (None, None) if new => Ok(()),
            _ => Err(ChangeError::NoLoadBalancer),
        }
    }

    /// There is a haproxy.cfg.
    fn expect_streams(&self) -> Result<(), ChangeError> {
        let text = self.text.borrow();
        let there = text.as_ref().is_some_and(|text| text.streams.is_some());
        there.then_some(()).ok_or(ChangeError::NoLoadBalancer)
    }

    /// Stops what haproxy.cfg has brought.
    async fn end_streams(self: &Arc<Self>, state: &mut State) -> Result<(), ChangeError> {
        if let Some(present) = self.model().filter(|present| merge::has_streams(present)) {
            self.make_run(state, merge::without_streams(&present)).await?;
        }
        Ok(())
    }

    async fn understand(
        &self,
        id: LoadBalancerId,
        text: Bytes,
        vips: Vec<IpAddr>,
    ) -> Result<Understood, ChangeError> {
        let (store, must_fit) = (self.store.clone(), self.must_fit.load(Ordering::Relaxed));
        let (present, fit) = (self.model(), must_fit.then(|| self.unserved()));
        let work = move || understand(&store, id, text, &vips, present.as_deref(), fit);
        spawn_blocking(work).await.map_err(internal)?
    }

    /// Has the proxy say whether it would run this, and keeps what it names for when it is to. One that does not say, as when it does
    /// not run, says it at the start.
    ///
    /// # Errors
    /// When it would not.
    async fn check(
        self: &Arc<Self>,
        state: &mut State,
        understood: Understood,
    ) -> Result<LoadBalancer, ChangeError> {
        let Understood { model, document, certificates, source, .. } = understood;
        if let Err(error) = self.settle(state).await {
            tracing::warn!(%error, "a text is not looked at by the proxy before it is started");
            return Ok(model);
        }
        let kept = self.keep_all_for_octavia(state, certificates).await;
        let checked = match kept {
            Ok(()) => self.would_run(document).await.map_err(|error| source.told(error)),
            Err(error) => Err(error),
        };
        self.forget_unnamed(checked.is_ok().then_some(&model)).await;
        checked.map(|()| model)
    }

    /// Has the proxy say whether a document would run; one that does not say may run it.
    async fn would_run(&self, document: Bytes) -> Result<(), ChangeError> {
        match self.proxy.check(document).await {
            Ok(Checked { .. }) => Ok(()),
            Err(error) if error.is_faulty() => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "a text is not looked at by the proxy before it is started");
                Ok(())
            }
        }
    }

    async fn keep_all_for_octavia(
        self: &Arc<Self>,
        state: &mut State,
        certificates: Vec<Named>,
    ) -> Result<(), ChangeError> {
        for Named { id, stored, pem, .. } in certificates {
            self.keep_for_octavia(state, id, stored, pem).await?;
        }
        Ok(())
    }

    /// Keeps what a text names, which is there already when it has the id.
    async fn keep_for_octavia(
        self: &Arc<Self>,
        state: &mut State,
        id: CertificateId,
        stored: Stored,
        pem: Zeroizing<Vec<u8>>,
    ) -> Result<(), ChangeError> {
        let mut certificates = self.certificates.borrow().clone();
        if certificates.has(&id) {
            return Ok(());
        }
        certificates.has_room(&id, pem.len())?;
        let name = id.clone();
        match self.keeper.blocking(move |store| Ok(store.stage_certificate(&name, &pem))).await? {
            Ok(staged) => {
                certificates.insert(id.clone(), stored);
                self.certificates.send_replace(certificates);
                if staged == Staged::Replaced {
                    // What was there under the id of this content was not this content.
                    state.unsettled.insert(id, Verdict::Taken);
                    self.settle(state).await?;
                }
                Ok(())
            }
            Err((error, left)) => {
                if left != Staged::Unchanged {
                    state.unsettled.insert(id, Verdict::Refused(left));
                }
                Err(ChangeError::Storage(error))
            }
        }
    }

    /// Forgets what texts have named, and neither the document that runs nor the one before does, nor `next`. The state's lock is held.
    pub(super) async fn forget_unnamed(&self, next: Option<&LoadBalancer>) {
        let model = self.model();
        let present = model.as_deref().into_iter().chain(next);
        let named: BTreeSet<CertificateId> =
            present.flat_map(LoadBalancer::certificates).map(|used| used.id.clone()).collect();
        let mut unnamed = self.certificates.borrow().ids();
        unnamed.retain(|id| is_of_octavia(id) && !named.contains(id));
        if unnamed.is_empty() {
            return;
        }
        let previous = match self.keeper.read(Slot::Previous).await {
            Ok(document) => document.and_then(|document| document::parse(&document).ok()),
            Err(error) => return tracing::warn!(%error, "cannot look which certificates are in use"),
        };
        let of_previous: BTreeSet<&CertificateId> =
            previous.iter().flat_map(LoadBalancer::certificates).map(|used| used.id).collect();
        for id in unnamed.into_iter().filter(|id| !of_previous.contains(id)) {
            let name = id.clone();
            match self.keeper.blocking(move |store| store.remove_certificate(&name)).await {
                Ok(()) => self.certificates.send_modify(|certificates| certificates.remove(&id)),
                Err(error) => tracing::warn!(%id, %error, "a certificate that is not used any more stays"),
            }
        }
    }

    /// Stores what runs next, in whatever room there is if it is less than the present load balancer, and has it applied; the proxy's
    /// answer. The state's lock is held.
    pub(super) async fn store_and<T>(
        &self,
        model: &LoadBalancer,
        document: Bytes,
        apply: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<Result<T, NotReplaced>, ChangeError> {
        let length = document.len();
        let replaced = match merge::is_less(model, self.model().as_deref()) {
            true => self.keeper.replace_with_less(document, apply).await?,
            false => self.keeper.replace(document, apply).await?,
        };
        if replaced.is_ok() && merge::is_of_parts(model) {
            let keep = move |store: &Store| {
                reserve(store, length);
                Ok(())
            };
            self.keeper.blocking(keep).await?;
        }
        Ok(replaced.map(|(_, answer)| answer))
    }

    /// Stops what runs, and stores it no more. When no proxy runs there is nothing to stop, and generation 0 is answered. The state's lock is held.
    pub(super) async fn forget(self: &Arc<Self>, state: &mut State) -> Result<Applied, ChangeError> {
        let applied = match self.proxy.delete().await {
            Ok(applied) => applied,
            Err(error) if error.is_not_found() || error.is_not_running() => {
                Applied { generation: 0, changed: true, remarks: Vec::new() }
            }
            Err(error) => {
                self.diverged(state);
                return Err(error.into());
            }
        };
        if let Err(error) = self.keeper.remove().await {
            self.diverged(state);
            return Err(error);
        }
        self.model.send_replace(Present::default());
        self.diverged(state);
        Ok(applied)
    }
}

/// Keeps room for what is left of a load balancer of several texts, stored in so many bytes, when one of them goes. Blocks on the disk.
pub(super) fn reserve(store: &Store, bytes: usize) {
    if let Err(error) = store.reserve(bytes as u64) {
        tracing::warn!(%error, "no room can be kept for when a listener is stopped while the disk is full");
    }
}
