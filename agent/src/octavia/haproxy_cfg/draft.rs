//! What a text has said so far, section by section.

use std::collections::HashMap;

use amphora_model::{
    FlowLog, Listener, ListenerId, LoadBalancer, LoadBalancerId, Pool, PoolId, SessionPersistence, Vip,
};

use super::{
    Context, Fault, Lines, Peer, Remark, Translated,
    args::Args,
    exporter::{self, Seen},
    frontend::Backend,
    global::{Defaults, Global},
    listener::ListenerDraft,
    names::Names,
    pool::{OfListener, PoolDraft},
    words::{Line, Place},
};

/// What may be said once.
#[derive(Debug)]
pub(super) struct Once<'t, T>(Option<(Place<'t>, T)>);

impl<T> Default for Once<'_, T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'t, T> Once<'t, T> {
    /// Says it.
    pub(super) fn set(&mut self, place: Place<'t>, value: T) -> Result<(), Fault> {
        if let Some((first, _)) = &self.0 {
            return Err(place.fault(format!("is said in line {} already", first.number)));
        }
        self.0 = Some((place, value));
        Ok(())
    }

    /// What was said.
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, value)| value)
    }

    /// Where it was said.
    pub(super) fn place(&self) -> Option<Place<'t>> {
        self.0.as_ref().map(|(place, _)| *place)
    }

    /// What was said; it has to be, in the section that begins at `section`.
    pub(super) fn required(&self, section: Place<'t>, what: &str) -> Result<&T, Fault> {
        self.get().ok_or_else(|| section.fault(format!("has no {what}")))
    }
}

/// Statements come in the order in which Octavia writes them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order(u8);

impl Order {
    /// The next one, by its place in that order.
    pub(super) fn next(&mut self, place: Place<'_>, rank: u8) -> Result<(), Fault> {
        if rank < self.0 {
            return Err(place.fault("does not come behind what is above it: a value with a line feed?"));
        }
        self.0 = rank;
        Ok(())
    }
}

/// What changes nothing, each reason once.
#[derive(Debug, Default)]
pub(super) struct Remarks(Vec<Remark>);

impl Remarks {
    /// Notes one.
    pub(super) fn note(&mut self, place: Place<'_>, reason: &'static str) {
        self.push(place, reason, false);
    }

    /// Notes one of what a tenant has asked for.
    pub(super) fn left_out(&mut self, place: Place<'_>, reason: &'static str) {
        self.push(place, reason, true);
    }

    fn push(&mut self, place: Place<'_>, reason: &'static str, is_asked_for: bool) {
        if self.0.iter().all(|remark| remark.reason != reason) {
            self.0.push(Remark { line: place.number, reason, is_asked_for });
        }
    }
}

/// All that was said.
#[derive(Debug, Default)]
pub(super) struct Draft<'t> {
    section: Section,
    /// Each statement of `global` but for `log`, which has two.
    global: Vec<(Place<'t>, Global)>,
    defaults: Vec<(Place<'t>, Defaults)>,
    sections: Sections<'t>,
    peers: Vec<Peer>,
    exporter: (Seen, Seen),
    pub(super) listeners: Vec<ListenerDraft<'t>>,
    listener_ids: HashMap<ListenerId, Place<'t>>,
    pub(super) pools: Vec<PoolDraft<'t>>,
    pool_names: HashMap<Backend, Place<'t>>,
    remarks: Remarks,
}

/// Where sections begin of which there is one.
#[derive(Debug, Default)]
struct Sections<'t> {
    global: Once<'t, ()>,
    defaults: Once<'t, ()>,
    peers: Once<'t, String>,
    exporter: (Once<'t, ()>, Once<'t, ()>),
}

/// The section that is being read.
#[derive(Clone, Copy, Debug, Default)]
enum Section {
    #[default]
    None,
    Global,
    Defaults,
    Peers,
    ExporterFrontend,
    ExporterBackend,
    /// The last of the listeners.
    Frontend,
    /// The last of the pools.
    Backend,
}

impl<'t> Draft<'t> {
    /// Takes the next line.
    pub(super) fn line(&mut self, line: &Line<'t>) -> Result<(), Fault> {
        if let Some(section) = self.begin(line)? {
            self.section = section;
            return Ok(());
        }
        let place = line.place;
        if line.apart {
            return Err(
                place.fault("has an empty line above it, which is for sections: a value with a line feed?")
            );
        }
        match self.section {
            Section::None => Err(place.fault("is in front of the first section")),
            Section::Global => self.global(line),
            Section::Defaults => {
                let statement = Defaults::read(line)?;
                if self.defaults.iter().any(|(_, known)| *known == statement) {
                    return Err(place.fault("is said already"));
                }
                self.defaults.push((place, statement));
                Ok(())
            }
            Section::Peers => {
                let peer = Peer::read(line)?;
                if self.peers.iter().any(|known| known.name == peer.name || known.address == peer.address) {
                    return Err(place.fault("is a peer that is there already"));
                }
                if self.peers.len() == 2 {
                    return Err(place.fault("is the third amphora of a pair"));
                }
                self.peers.push(peer);
                Ok(())
            }
            Section::ExporterFrontend => self.exporter.0.frontend(line),
            Section::ExporterBackend => self.exporter.1.backend(line),
            Section::Frontend => self.listeners.last_mut().map_or(Ok(()), |draft| draft.line(line)),
            Section::Backend => {
                self.pools.last_mut().map_or(Ok(()), |draft| draft.line(line, &mut self.remarks))
            }
        }
    }

    fn global(&mut self, line: &Line<'t>) -> Result<(), Fault> {
        let statement = Global::read(line)?;
        let kind = std::mem::discriminant(&statement);
        if self.global.iter().any(|(_, known)| std::mem::discriminant(known) == kind) {
            return Err(line.place.fault("is said already"));
        }
        if let Some(reason) = statement.without_effect() {
            self.remarks.note(line.place, reason);
        }
        self.global.push((line.place, statement));
        Ok(())
    }

    /// The section that a line begins, if it does.
    fn begin(&mut self, line: &Line<'t>) -> Result<Option<Section>, Fault> {
        let mut args = Args::new(line);
        let place = line.place;
        let raw = line.words.first().map_or("", |word| word.raw);
        let is_section = matches!(raw, "global" | "defaults" | "peers" | "frontend" | "backend");
        if !is_section {
            return Ok(None);
        }
        args.take(raw);
        if raw != "global" && self.sections.global.get().is_none() {
            return Err(place.fault("is in front of section global"));
        }
        let section = match raw {
            "global" => {
                self.sections.global.set(place, ())?;
                Section::Global
            }
            "defaults" => {
                self.sections.defaults.set(place, ())?;
                Section::Defaults
            }
            _ if self.sections.defaults.get().is_none() => {
                return Err(place.fault("is in front of section defaults"));
            }
            "peers" => {
                self.sections.peers.set(place, args.plain("a name")?.into_owned())?;
                Section::Peers
            }
            "frontend" if args.take(exporter::FRONTEND) => {
                self.sections.exporter.0.set(place, ())?;
                Section::ExporterFrontend
            }
            "backend" if args.take(exporter::BACKEND) => {
                self.sections.exporter.1.set(place, ())?;
                Section::ExporterBackend
            }
            "frontend" => {
                let id = args.parsed("the id of a listener")?;
                if let Some(first) = self.listener_ids.insert(id, place) {
                    return Err(place.fault(format!("is there already, in line {}", first.number)));
                }
                self.listeners.push(ListenerDraft::new(id, place));
                Section::Frontend
            }
            _ => {
                let name = Backend::read(&mut args)?;
                if let Some(first) = self.pool_names.insert(name, place) {
                    return Err(place.fault(format!("is there already, in line {}", first.number)));
                }
                self.pools.push(PoolDraft::new(name, place));
                Section::Backend
            }
        };
        args.last(Some(section))
    }

    /// The load balancer that the text means, before the last look at it.
    pub(super) fn finish(mut self, context: &Context<'_>) -> Result<Translated, Fault> {
        let global = self.sections.global.place().ok_or_else(|| Fault::whole("has no section global"))?;
        self.sections.defaults.get().ok_or_else(|| global.fault("is followed by no section defaults"))?;
        let names = Names { id: self.id(global)?, context: *context };
        self.check_peers(names.id)?;
        self.check_exporter()?;
        let log = self.log(global)?;
        let (pools, of_listeners) = self.pools(&names)?;
        let mut vips: Option<(Place<'t>, Vec<Vip>)> = None;
        let mut listeners: Vec<Listener> = Vec::new();
        for draft in &self.listeners {
            let finished = draft.finish(&names, &of_listeners, log.as_ref(), &mut self.remarks)?;
            let here: Vec<Vip> = finished.addresses.into_iter().map(|address| Vip { address }).collect();
            match &vips {
                Some((_, first)) if *first == here => {}
                Some((place, _)) => {
                    let reason = format!("binds other addresses than the listener in line {}", place.number);
                    return Err(draft.place.fault(reason));
                }
                None => vips = Some((draft.place, here)),
            }
            listeners.push(finished.listener);
        }
        let mut vips = vips.map(|(_, vips)| vips).unwrap_or_default();
        if listeners.is_empty() {
            vips = context.vips.iter().map(|address| Vip { address: *address }).collect();
        }
        if vips.is_empty() {
            return Err(Fault::whole(
                "has no listener, and the addresses of the load balancer are not known",
            ));
        }
        let load_balancer =
            LoadBalancer { id: names.id, name: String::new(), admin_state_up: true, vips, listeners, pools };
        let lines = Lines::of(&self);
        let backends = self.pools.iter().map(|draft| (draft.name.pool, draft.name.listener)).collect();
        let mut remarks = self.remarks.0;
        remarks.sort_by_key(|remark| remark.line);
        Ok(Translated { load_balancer, backends, peers: self.peers, remarks, lines })
    }

    fn id(&self, global: Place<'t>) -> Result<LoadBalancerId, Fault> {
        let socket = self.global.iter().find_map(|(place, statement)| match statement {
            Global::StatsSocket(name) => Some((*place, name)),
            _ => None,
        });
        let (place, name) =
            socket.ok_or_else(|| global.fault("has no stats socket, which says whose text it is"))?;
        name.parse().map_err(|_| place.fault("does not have the id of a load balancer for its name"))
    }

    fn check_peers(&self, id: LoadBalancerId) -> Result<(), Fault> {
        let name = self.sections.peers.get();
        if let Some(place) = self.sections.peers.place()
            && name.is_none_or(|name| *name != format!("{}_peers", id.0.simple()))
        {
            return Err(place.fault("is not the peers of this load balancer"));
        }
        for draft in &self.pools {
            if let Some((place, peers)) = draft.peers()
                && Some(peers) != name
            {
                return Err(place.fault("names peers that are not there"));
            }
        }
        Ok(())
    }

    fn check_exporter(&self) -> Result<(), Fault> {
        let (frontend, backend) = &self.sections.exporter;
        match (frontend.place(), backend.place()) {
            (None, None) => Ok(()),
            (Some(place), _) if !self.exporter.0.is_frontend() => {
                Err(place.fault("lacks lines that Octavia writes"))
            }
            (_, Some(place)) if !self.exporter.1.is_backend() => {
                Err(place.fault("lacks lines that Octavia writes"))
            }
            (Some(place), None) | (None, Some(place)) => Err(place.fault("comes without its counterpart")),
            (Some(_), Some(_)) => Ok(()),
        }
    }

    /// The flow logs' facility, when there are any.
    fn log(&self, global: Place<'t>) -> Result<Option<u8>, Fault> {
        let says = |wanted| self.defaults.iter().find(|(_, said)| *said == wanted).map(|(place, _)| *place);
        match (says(Defaults::LogGlobal), says(Defaults::NoLog)) {
            (Some(_), Some(place)) => Err(place.fault("contradicts log global")),
            (Some(place), None) => {
                let facility = self.global.iter().find_map(|(_, statement)| match statement {
                    Global::UserLog(facility) => Some(*facility),
                    _ => None,
                });
                facility.map(Some).ok_or_else(|| place.fault("is said without a log in section global"))
            }
            (None, Some(_)) => Ok(None),
            (None, None) => {
                Err(global.fault("is followed by defaults that say neither log global nor no log"))
            }
        }
    }

    /// Each pool once, and what its listeners have of it.
    fn pools(&mut self, names: &Names<'_>) -> Result<(Vec<Pool>, OfListeners<'t>), Fault> {
        let mut pools: Vec<Pool> = Vec::new();
        let mut known: HashMap<PoolId, (usize, Place<'t>, Option<SessionPersistence>)> = HashMap::new();
        let mut of_listeners = OfListeners::default();
        for draft in &self.pools {
            if !self.listener_ids.contains_key(&draft.name.listener) {
                return Err(draft.place.fault("is for a listener that is not there"));
            }
            let (pool, of_listener) = draft.finish(names, &mut self.remarks)?;
            match known.get(&pool.id) {
                None => {
                    known.insert(pool.id, (pools.len(), draft.place, of_listener.left_out.clone()));
                    pools.push(pool);
                }
                Some((at, first, left_out)) => {
                    let twin = (&pool, of_listener.left_out.as_ref());
                    if let Err(what) = super::pool::merge((&mut pools[*at], left_out.as_ref()), twin) {
                        let line = first.number;
                        return Err(draft
                            .place
                            .fault(format!("is the pool of line {line} with another {what}")));
                    }
                }
            }
            of_listeners.entry(draft.name.listener).or_default().push(of_listener);
        }
        Ok((pools, of_listeners))
    }
}

/// What each listener has of its pools.
pub(super) type OfListeners<'t> = HashMap<ListenerId, Vec<OfListener<'t>>>;

/// The flow log of a listener, if `log` has a facility.
pub(super) fn flow_log(log: Option<&u8>, format: &str) -> Option<FlowLog> {
    log.map(|facility| FlowLog { format: format.into(), facility: *facility })
}
