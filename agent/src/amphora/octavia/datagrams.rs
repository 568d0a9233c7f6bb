//! Listeners of datagrams as Octavia's controller brings them: each by a text of its own, taken up and stopped by itself.

use std::{net::IpAddr, sync::Arc, sync::atomic::Ordering};

use amphora_ipc::proxy::Applied;
use amphora_model::{Fault, Listener, ListenerId, LoadBalancer, LoadBalancerId, MemberId, PoolId, Refusal};
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{
    Started, Text, merge,
    understand::{document_of, fits, refused},
};
use crate::{
    amphora::{Amphora, Present, State, detached, internal},
    change_error::ChangeError,
    document,
    octavia::lvs::{self, Translated},
};

/// What the text of a listener says.
#[derive(Clone, Debug)]
pub(super) struct Datagrams {
    /// It; `None` while its text does not say where it is reached.
    pub(super) listener: Option<Listener>,
    enabled: bool,
    disabled: Vec<(PoolId, MemberId)>,
}

impl Datagrams {
    /// Takes up what is stored.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        lvs::translate(text).map(Self::from).map_err(|fault| fault.to_string())
    }
}

impl From<Translated> for Datagrams {
    fn from(translated: Translated) -> Self {
        let listener = translated.served.and_then(|served| served.listeners.into_iter().next());
        Self { listener, enabled: translated.enabled, disabled: translated.disabled }
    }
}

/// What of a load balancer can run.
enum Part {
    All,
    /// The document of its listeners of datagrams, where there are any.
    Datagrams(Option<Bytes>),
}

/// What texts say of the load balancer and no document can have: a heartbeat tells it all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unserved {
    /// Listeners that are enabled and have no pool: their texts do not say where they are reached.
    pub listeners: Vec<ListenerId>,
    /// Members of pools of datagrams that are disabled: their addresses are not known.
    pub members: Vec<(PoolId, MemberId)>,
    /// The backends of haproxy.cfg, to some of which nothing may lead.
    pub backends: Vec<(PoolId, ListenerId)>,
}

impl Amphora {
    /// What no document can have.
    pub fn unserved(&self) -> Unserved {
        let text = self.text.borrow();
        let mut unserved = Unserved::default();
        let streams = text.iter().filter_map(|text| text.streams.as_ref());
        unserved.backends.extend(streams.flat_map(|streams| &streams.backends));
        for (id, datagrams) in text.iter().flat_map(|text| &text.datagrams) {
            if datagrams.enabled && datagrams.listener.is_none() {
                unserved.listeners.push(*id);
            }
            unserved.members.extend(&datagrams.disabled);
        }
        unserved
    }

    /// Whether there is a text of this listener.
    pub fn has_datagrams(&self, listener: ListenerId) -> bool {
        self.text.borrow().as_ref().is_some_and(|text| text.datagrams.contains_key(&listener))
    }

    /// The text of a listener, as it came.
    ///
    /// # Errors
    /// [`ChangeError::NoLoadBalancer`] when there is none.
    pub async fn datagrams_text(&self, listener: ListenerId) -> Result<Vec<u8>, ChangeError> {
        let id = self
            .text
            .borrow()
            .as_ref()
            .filter(|text| text.datagrams.contains_key(&listener))
            .map(|text| text.id);
        let id = id.ok_or(ChangeError::NoLoadBalancer)?;
        let text = self.keeper.blocking(move |store| store.read_datagrams(id, listener)).await?;
        text.ok_or(ChangeError::NoLoadBalancer)
    }

    /// Reads the text of a listener, and keeps it for the next [`start`](Self::start_datagrams).
    ///
    /// # Errors
    /// When the text before is kept.
    pub async fn put_datagrams(
        self: &Arc<Self>,
        listener: ListenerId,
        text: Bytes,
        vips: Vec<IpAddr>,
    ) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let _state = this.state.lock().await;
            let (id, translated, model) = this.understand_datagrams(listener, text.clone(), vips).await?;
            this.expect_octavias(id, true)?;
            if let Some((model, document)) = model {
                let document = match this.part_that_runs(&model).await? {
                    Part::All => Some(document),
                    Part::Datagrams(part) => part,
                };
                if let Some(document) = document {
                    this.would_run(document).await.map_err(|error| told(&text, error))?;
                }
            }
            this.keeper.blocking(move |store| store.write_datagrams(id, listener, &text)).await?;
            this.text.send_modify(|present| {
                let present = present.get_or_insert_with(|| Text::new(id));
                present.datagrams.insert(listener, translated.into());
            });
            Ok(())
        })
        .await
    }

    /// Makes a listener run as its text has it.
    ///
    /// # Errors
    /// When what ran before runs on.
    pub async fn start_datagrams(
        self: &Arc<Self>,
        listener: ListenerId,
        vips: Vec<IpAddr>,
    ) -> Result<Started, ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            let text = Bytes::from(this.datagrams_text(listener).await?);
            let ran = this.runs(listener);
            let (_, _, model) = this.understand_datagrams(listener, text.clone(), vips).await?;
            let applied = this.make_run(&mut state, model.map(|(model, _)| model)).await;
            let applied = applied.map_err(|error| told(&text, error))?;
            Ok(Started { applied, ran })
        })
        .await
    }

    /// Stops a listener until it is [started](Self::start_datagrams), and keeps its text.
    ///
    /// # Errors
    /// When it runs on.
    pub async fn stop_datagrams(self: &Arc<Self>, listener: ListenerId) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            if !this.has_datagrams(listener) {
                return Err(ChangeError::NoLoadBalancer);
            }
            this.end_datagrams(&mut state, listener).await
        })
        .await
    }

    /// Stops a listener and forgets its text; one that there is not is as good as forgotten.
    ///
    /// # Errors
    /// When it is there still.
    pub async fn delete_datagrams(self: &Arc<Self>, listener: ListenerId) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            let of = this
                .text
                .borrow()
                .as_ref()
                .filter(|text| text.datagrams.contains_key(&listener))
                .map(|text| text.id);
            let Some(id) = of else { return Ok(()) };
            this.end_datagrams(&mut state, listener).await?;
            this.keeper.blocking(move |store| store.remove_datagrams(id, listener)).await?;
            this.text.send_modify(|present| {
                if let Some(text) = present {
                    text.datagrams.remove(&listener);
                }
                *present = present.take().filter(|text| !text.is_empty());
            });
            Ok(())
        })
        .await
    }

    async fn end_datagrams(
        self: &Arc<Self>,
        state: &mut State,
        listener: ListenerId,
    ) -> Result<(), ChangeError> {
        if self.runs(listener) {
            let present = self.model();
            let rest = merge::with_datagrams(present.as_deref(), listener, None, &[]);
            self.make_run(state, rest.map_err(|reason| refused("", reason))?).await?;
        }
        Ok(())
    }

    fn runs(&self, listener: ListenerId) -> bool {
        self.model().is_some_and(|model| model.listeners.iter().any(|one| one.id == listener))
    }

    /// What of a load balancer can run: its other listeners may name certificates that are not there, as after a reboot of a machine
    /// that has keys in memory alone. haproxy.cfg brings them, and the listeners of datagrams, whose texts come before it, do not wait.
    async fn part_that_runs(&self, model: &LoadBalancer) -> Result<Part, ChangeError> {
        let Err(Refusal { faults }) = self.certificates.borrow().missing(model) else { return Ok(Part::All) };
        // What runs with certificates that it has read before does not give way.
        let runs = self.proxy.document().await.ok().and_then(|document| document::parse(&document).ok());
        if runs.is_some_and(|runs| merge::has_streams(&runs)) {
            return Ok(Part::All);
        }
        tracing::warn!(?faults, "only the listeners of datagrams run until haproxy.cfg comes with these");
        let part = merge::without_streams(model);
        let document = move || part.map(|part| document_of(&part)).transpose();
        let document = spawn_blocking(document).await.map_err(internal)??;
        Ok(Part::Datagrams(document.map(|(_, document)| document)))
    }

    /// Stores a load balancer of which a part alone can run, and makes that run. The state's lock is held.
    async fn replace_in_part(
        self: &Arc<Self>,
        state: &mut State,
        model: LoadBalancer,
        document: Bytes,
        part: Option<Bytes>,
    ) -> Result<Applied, ChangeError> {
        let apply = async {
            match part {
                Some(part) => self.proxy.apply(part).await,
                None => match self.proxy.delete().await {
                    Err(error) if error.is_not_found() => {
                        Ok(Applied { generation: 0, changed: false, remarks: Vec::new() })
                    }
                    deleted => deleted,
                },
            }
        };
        let replaced = self.store_and(&model, document, apply).await;
        // It does not run what is stored, whatever came of it.
        self.diverged(state);
        let applied = replaced??;
        self.model.send_replace(Present { model: Some(Arc::new(model)), mark: None });
        Ok(applied)
    }

    /// Makes this run, or nothing. The state's lock is held.
    pub(super) async fn make_run(
        self: &Arc<Self>,
        state: &mut State,
        model: Option<LoadBalancer>,
    ) -> Result<Applied, ChangeError> {
        self.settle(state).await?;
        let applied = match model {
            Some(model) => {
                let (model, document) =
                    spawn_blocking(move || document_of(&model)).await.map_err(internal)??;
                match self.part_that_runs(&model).await? {
                    Part::All => self.replace(state, model, document).await,
                    Part::Datagrams(part) => self.replace_in_part(state, model, document, part).await,
                }
            }
            None if self.model().is_some() => self.forget(state).await,
            None => Ok(Applied { generation: 0, changed: false, remarks: Vec::new() }),
        };
        self.forget_unnamed(None).await;
        applied
    }

    /// What a text says, whose it is, and what would run with it.
    async fn understand_datagrams(
        &self,
        listener: ListenerId,
        text: Bytes,
        vips: Vec<IpAddr>,
    ) -> Result<(LoadBalancerId, Translated, Option<(LoadBalancer, Bytes)>), ChangeError> {
        let (present, must_fit) = (self.model(), self.must_fit.load(Ordering::Relaxed));
        let mut unserved = self.unserved();
        let work = move || {
            let translated = lvs::translate(&text).map_err(|fault| refused("", fault.to_string()))?;
            if translated.listener != listener {
                let reason =
                    format!("the text is of listener {}, the request of {listener}", translated.listener);
                return Err(refused("", reason));
            }
            let id = translated.load_balancer;
            // What is another load balancer's is refused when it is known whose this is.
            let present = present.filter(|present| present.id == id);
            if let Some(reason) = present.as_deref().and_then(|present| taken(&text, &translated, present)) {
                return Err(refused("", reason));
            }
            let served = translated.served.clone();
            let model = merge::with_datagrams(present.as_deref(), listener, served, &vips)
                .map_err(|reason| refused("", format!("the text {reason}")))?;
            if let Some(model) = model.as_ref().filter(|_| must_fit) {
                let pool =
                    translated.served.as_ref().and_then(|served| served.pools.first()).map(|pool| pool.id);
                unserved.members.extend(&translated.disabled);
                fits(model, &unserved, pool).map_err(|error| told(&text, error))?;
            }
            let model = model.as_ref().map(document_of).transpose()?;
            Ok((id, translated, model))
        };
        spawn_blocking(work).await.map_err(internal)?
    }
}

/// That another listener has the port of a text's.
fn taken(text: &[u8], translated: &Translated, present: &LoadBalancer) -> Option<String> {
    let served = translated.served.as_ref()?;
    let new = served.listeners.first()?;
    let same = |other: &&Listener| {
        (other.protocol.transport(), other.port) == (new.protocol.transport(), new.port) && other.id != new.id
    };
    let other = present.listeners.iter().find(same)?;
    let reason = format!("port {} is that of listener {} already", new.port, other.id);
    // Where the first address is given.
    let at = served.vips.first().map(|vip| format!("{} {}", vip.address, new.port))?;
    let line = text.split(|b| *b == b'\n').position(|line| line.trim_ascii() == at.as_bytes());
    Some(line.map_or_else(|| reason.clone(), |line| format!("line {}: {at}: {reason}", line + 1)))
}

/// The same error with the lines that name what its faults are of, listener, pool or member.
fn told(text: &[u8], error: ChangeError) -> ChangeError {
    let line = |id: &str| text.split(|b| *b == b'\n').position(|line| line.ends_with(id.as_bytes()));
    let place = |fault: &Fault| {
        let mut ids = fault.path.rsplit('[').filter_map(|step| step.split_once(']'));
        ids.find_map(|(id, _)| line(id)).map(|line| format!("line {}: {fault}", line + 1))
    };
    let fault = |fault: &Fault| Fault {
        path: String::new(),
        reason: place(fault).unwrap_or_else(|| fault.to_string()),
    };
    match error {
        ChangeError::Invalid(refusal) => {
            ChangeError::Invalid(Refusal { faults: refusal.faults.iter().map(fault).collect() })
        }
        error => error,
    }
}
