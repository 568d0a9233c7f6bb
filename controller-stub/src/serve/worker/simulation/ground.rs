//! The real database, and machines that do as a seed says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use amphora_agent::heartbeat::mark;
use futures_util::{FutureExt, future::join_all};
use rusqlite::Connection;
use tokio::sync::{Notify, watch};

use super::Random;
use crate::{
    error::{Error, Result},
    serve::{
        api::Api,
        certificates::tenants::Tenants,
        compute::Liveness,
        config::Config,
        db::Db,
        housekeeping,
        network::Networks,
        queue,
        status::{Role, Topology},
        worker::{
            Given, Outside, Severed, Store, Taken, Told, rows, schedule,
            spares::{self, Spares},
            task::Context,
        },
    },
};

/// Two networks: that of VIPs, and one of members.
const CONFIGURATION: &str = "[networks]\npublic = 192.0.2.0/25\nmembers = 198.51.100.0/25\n[quotas]\ndefault_load_balancer_quota = 3\n";

/// What a machine is.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) amphora: String,
    pub(super) runs: bool,
    /// It answers nobody.
    pub(super) hangs: bool,
    /// Its links lead nowhere.
    pub(super) cut: bool,
    pub(super) load_balancer: Option<String>,
    pub(super) document: Option<serde_json::Value>,
    pub(super) master: bool,
    /// Its ports.
    pub(super) ports: BTreeSet<String>,
    /// The other one of its pair, as it was told, and its own role.
    pub(super) other: Option<(String, Role)>,
}

pub(super) struct State {
    /// Milliseconds by which the clock is ahead: pauses are not waited for.
    pub(super) ahead: i64,
    pub(super) random: Random,
    machines: BTreeMap<String, Machine>,
    /// Points until it is killed.
    pub(super) lives: Option<u32>,
    /// Of a thousand things that are done outside, so many fail.
    pub(super) failing: u64,
    /// Amphorae whose agents are never configured.
    pub(super) stubborn: BTreeSet<String>,
    /// No agent that is to be configured answers.
    pub(super) none_listens: bool,
    /// Of a thousand times so many cannot be found out how a machine is, or which there are.
    pub(super) unknown: u64,
    /// No machine that is made answers.
    pub(super) none_boots: bool,
    /// A certificate of tenants' is lacking: whoever is told all else is not done.
    pub(super) lacking: bool,
    pub(super) spares: usize,
    pub(super) points: u64,
    /// Load balancers that were answered, and whose end was not.
    pub(super) answered: BTreeSet<String>,
    pub(super) generations: BTreeMap<String, i64>,
}

#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    killed: Arc<Notify>,
    pub(super) db: Db,
    pub(super) api: Arc<Api>,
    pub(super) networks: Networks,
    _dir: Arc<tempfile::TempDir>,
}

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        // Where there is a file system in memory: what is on the disk is not what this is about.
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let db = Db::open(&dir.path().join("serve.db")).unwrap();
        let config = Config::parse(CONFIGURATION).unwrap();
        let networks = Networks::new(config.networks.clone());
        let api = Arc::new(Api::new(db.clone(), config, Tenants::new(dir.path(), [], true)));
        let state = State {
            ahead: 0,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            machines: BTreeMap::new(),
            lives: None,
            failing: 0,
            stubborn: BTreeSet::new(),
            none_listens: false,
            unknown: 0,
            none_boots: false,
            lacking: false,
            spares: usize::try_from(seed % 3).unwrap(),
            points: 0,
            answered: BTreeSet::new(),
            generations: BTreeMap::new(),
        };
        let (state, killed) = (Arc::new(Mutex::new(state)), Arc::default());
        let this = Self { state, killed, db, api, networks, _dir: Arc::new(dir) };
        this.make_flavor().await;
        this
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn state_of_machines(&self) -> BTreeMap<String, Machine> {
        self.state().machines.clone()
    }

    pub(super) async fn column(&self, query: &'static str) -> Vec<String> {
        let read = self.db.read::<_, Error, _>(move |t| {
            let mut query = t.prepare(query)?;
            Ok(query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        });
        read.await.unwrap()
    }

    pub(super) async fn count(&self, query: &str) -> i64 {
        let query = query.to_owned();
        let read = self.db.read::<_, Error, _>(move |t| Ok(t.query_row(&query, [], |row| row.get(0))?));
        read.await.unwrap()
    }

    /// The links of one of the machines are cut.
    pub(super) fn cut(&self, amphora: &str) {
        let mut state = self.state();
        let machine = state.machines.values_mut().find(|machine| machine.amphora == amphora);
        if let Some(machine) = machine.filter(|machine| machine.document.is_some()) {
            machine.cut = true;
        }
    }

    /// One of the machines ends, or hangs; a peer takes its addresses over.
    pub(super) fn strike(&self, amphora: &str, hangs: bool) {
        let mut state = self.state();
        let Some(machine) = state.machines.values_mut().find(|machine| machine.amphora == amphora) else {
            return;
        };
        let was_master = std::mem::take(&mut machine.master);
        (machine.runs, machine.hangs) = (hangs, hangs);
        let load_balancer = machine.load_balancer.clone();
        let peer = state.machines.values_mut().find(|other| {
            other.amphora != amphora
                && other.load_balancer == load_balancer
                && other.document.is_some()
                && other.runs
                && !other.hangs
        });
        if let Some(peer) = peer.filter(|_| was_master) {
            peer.master = true;
        }
    }

    /// Here it may be killed, and others may come in between.
    async fn point(&self) {
        let (dies, slow) = {
            let mut state = self.state();
            state.points += 1;
            let slow = state.random.next(4);
            let dies = match &mut state.lives {
                Some(0) => true,
                Some(lives) => {
                    *lives -= 1;
                    false
                }
                None => false,
            };
            (dies, slow)
        };
        if dies {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
        for _ in 0..slow {
            tokio::task::yield_now().await;
        }
    }

    fn fails(&self, what: &str) -> Result<()> {
        let mut state = self.state();
        let failing = state.failing;
        if state.random.next(1000) < failing { Err(Error::NotDone(format!("{what} fails"))) } else { Ok(()) }
    }

    fn is_known(&self) -> Result<()> {
        let mut state = self.state();
        let unknown = state.unknown;
        if state.random.next(1000) < unknown { Err(Error::Local("not known".to_owned())) } else { Ok(()) }
    }

    pub(super) fn context(&self) -> Arc<Context<Self, Self>> {
        Arc::new(Context {
            store: self.clone(),
            outside: self.clone(),
            networks: self.networks.clone(),
            agent_ports: (20_000, 20_099),
            spares: Spares { size: self.state().spares, topology: Topology::Single },
            management: Config::parse("").unwrap().compute.management.subnets[0].clone(),
        })
    }

    /// A worker from its start until nothing is to be done, or it is killed. True when it was not.
    pub(super) async fn serve(&self) -> bool {
        let _ = self.killed.notified().now_or_never();
        let work = async {
            let context = self.context();
            while schedule::look(&context).await.is_err()
                || schedule::mend(&context).await.is_err()
                || schedule::collect(&context).await.is_err()
            {}
            loop {
                let now = Store::now(self);
                let (due, next) = self.due(now).await;
                if due.is_empty() && spares::keep(&context).await.is_ok_and(|more| more) {
                    continue;
                }
                if due.is_empty() {
                    let Some(next) = next else { break };
                    self.state().ahead += (next - now).max(0);
                }
                join_all(due.iter().map(|id| context.work(id))).await;
            }
        };
        tokio::select! {
            () = work => true,
            () = self.killed.notified() => false,
        }
    }

    /// Whom to work on, and if nobody, when.
    async fn due(&self, now: i64) -> (BTreeSet<String>, Option<i64>) {
        let stubborn = self.state().stubborn.clone();
        let read = self.db.read::<_, Error, _>(move |t| {
            let mut left = queue::due(t, i64::MAX, 1000)?;
            // Tried often enough: that goes on for ever, and keeps nothing else.
            let is_stubborn = |work: &queue::Work| {
                work.kind == queue::Kind::AmphoraConfigure && stubborn.contains(&work.subject)
            };
            left.retain(|work| !is_stubborn(work) || work.attempts < 3);
            assert!(left.iter().all(|work| work.attempts < 100), "it does not end: {left:?}");
            let next = left.iter().map(|work| work.not_before).min();
            let due = left.iter().filter(|work| work.is_due(now));
            let whose: Result<BTreeSet<String>> =
                due.map(|work| rows::whose(t, work.kind, &work.subject)).collect();
            Ok((whose?, next))
        });
        read.await.unwrap()
    }

    /// Nothing more happens, and nothing fails.
    pub(super) async fn settle(&self) {
        {
            let mut state = self.state();
            (state.lives, state.failing, state.unknown) = (None, 0, 0);
        }
        // Who hangs is silent, which is noticed in time: of one that was booting only once it is in use.
        let silent = || {
            let machines = self.state_of_machines().into_values();
            machines.filter(|one| one.hangs || !one.runs).map(|one| one.amphora).collect::<Vec<_>>()
        };
        for _ in 0..5 {
            crate::serve::health_manager::replace(&self.db, silent()).await.unwrap();
            assert!(self.serve().await);
            // Until their certificates have ended.
            let (ended, asked) = (i64::MAX, "SELECT count(*) FROM work WHERE kind = 'AMPHORA_FAILOVER'");
            housekeeping::replace_ended(&self.db, ended).await.unwrap();
            let whole = !self.state().machines.values().any(|one| one.cut);
            if whole && silent().is_empty() && self.count(asked).await == 0 {
                return;
            }
        }
    }
}

impl Store for World {
    async fn write<T, F>(&self, piece: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.point().await;
        let result = Store::write(&self.db, piece).await;
        self.point().await;
        result
    }

    async fn read<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        Store::read(&self.db, query).await
    }

    fn now(&self) -> i64 {
        Store::now(&self.db) + self.state().ahead
    }

    fn changes(&self) -> watch::Receiver<u64> {
        Store::changes(&self.db)
    }
}

impl Outside for World {
    fn driver(&self) -> &'static str {
        "namespaces"
    }

    fn name(&self, _: &str, amphora: &str) -> Result<String> {
        Ok(format!("m-{amphora}"))
    }

    fn boot_time(&self, _: &str) -> Duration {
        Duration::ZERO
    }

    fn validity_ms(&self) -> i64 {
        1_000_000
    }

    async fn alive(&self, amphora: &rows::Amphora) -> Result<Liveness> {
        self.is_known()?;
        Ok(match self.state().machines.get(&amphora.machine) {
            None => Liveness::Absent,
            Some(machine) if machine.runs => Liveness::Running,
            Some(_) => Liveness::Dead,
        })
    }

    async fn boot(&self, amphora: &rows::Amphora, _: bool) -> Result<Given> {
        self.point().await;
        let id = amphora.id.clone();
        let named = self.count(&format!("SELECT count(*) FROM amphora WHERE id = '{id}'")).await;
        assert_eq!(named, 1, "a machine that no row names");
        let new = Machine {
            amphora: id,
            runs: true,
            hangs: false,
            cut: false,
            load_balancer: None,
            document: None,
            master: false,
            ports: BTreeSet::new(),
            other: None,
        };
        self.state().machines.entry(amphora.machine.clone()).or_insert(new);
        self.point().await;
        if self.state().none_boots {
            std::future::pending::<()>().await;
        }
        if self.state().machines.get(&amphora.machine).is_none_or(|machine| machine.hangs) {
            return Err(Error::NotDone("no answer".to_owned()));
        }
        self.fails("to boot")?;
        Ok(Given { ends: Store::now(self) + 1_000_000, trust: None })
    }

    async fn remove(&self, machine: &str) -> Result<()> {
        self.point().await;
        self.fails("to remove")?;
        let amphora = self.state().machines.get(machine).map(|machine| machine.amphora.clone());
        if let Some(amphora) = amphora {
            self.strike(&amphora, false);
        }
        self.state().machines.remove(machine);
        self.point().await;
        Ok(())
    }

    async fn apply(&self, told: &Told, amphora: &rows::Amphora) -> Result<Taken> {
        self.point().await;
        self.fails("to apply")?;
        {
            let mut state = self.state();
            // Those that nobody knows any more count as well: who was not fenced has the addresses still.
            let others = state.machines.values().filter(|machine| {
                machine.amphora != amphora.id
                    && machine.document.is_some()
                    && machine.load_balancer.as_ref() == Some(&told.lb.id)
            });
            let others: Vec<Machine> = others.cloned().collect();
            let allowed = usize::from(told.lb.topology == Topology::ActiveStandby);
            assert!(others.len() <= allowed, "{} others have the addresses of {}", others.len(), amphora.id);
            let first = !others.iter().any(|machine| machine.master);
            let machine =
                state.machines.get_mut(&amphora.machine).ok_or_else(|| Error::NotDone("gone".to_owned()))?;
            if !machine.runs || machine.hangs {
                return Err(Error::NotDone("no answer".to_owned()));
            }
            machine.load_balancer = Some(told.lb.id.clone());
            machine.document = Some(told.rendered.document.clone());
            machine.master |= first;
            if amphora.applied == 0 {
                machine.cut = false;
                machine.ports.extend(amphora.ports.iter().map(|port| port.id.clone()));
                machine.other = told.other(amphora).map(|other| (other.id.clone(), told.role(&amphora.id)));
            }
        }
        self.point().await;
        let lacking = self.state().lacking;
        Ok(Taken {
            document: mark(told.rendered.document.to_string().as_bytes()),
            lacking: lacking.then(|| Error::NotDone("there is no certificate shop".to_owned())),
        })
    }

    async fn unplug(&self, amphora: &rows::Amphora, port: &rows::Port) -> Result<()> {
        self.point().await;
        self.fails("to unplug")?;
        {
            let mut state = self.state();
            let machine = state.machines.get_mut(&amphora.machine).filter(|one| one.runs && !one.hangs);
            machine.ok_or_else(|| Error::NotDone("no answer".to_owned()))?.ports.remove(&port.id);
        }
        self.point().await;
        Ok(())
    }

    async fn configure(&self, amphora: &rows::Amphora, _: bool) -> Result<Given> {
        self.point().await;
        if self.state().none_listens {
            std::future::pending::<()>().await;
        }
        // What keeps nothing else may fail often.
        self.fails("to configure").and_then(|()| self.fails("to configure"))?;
        if self.state().stubborn.contains(&amphora.id) {
            return Err(Error::NotDone("it takes no other certificate".to_owned()));
        }
        let answers = self.state().machines.get(&amphora.machine).is_some_and(|one| one.runs && !one.hangs);
        if !answers {
            return Err(Error::NotDone("no answer".to_owned()));
        }
        Ok(Given { ends: Store::now(self) + 1_000_000, trust: None })
    }

    async fn is_master(&self, amphora: &rows::Amphora) -> Option<bool> {
        let state = self.state();
        let machine = state.machines.get(&amphora.machine)?;
        (machine.runs && !machine.hangs).then_some(machine.master)
    }

    async fn hand_over(&self, from: &rows::Amphora, to: &rows::Amphora) -> Result<()> {
        self.point().await;
        self.fails("to hand over")?;
        let mut state = self.state();
        let fit = |machine: &Machine| machine.runs && !machine.hangs && machine.document.is_some();
        if ![from, to].iter().all(|one| state.machines.get(&one.machine).is_some_and(fit)) {
            return Err(Error::NotDone("no answer".to_owned()));
        }
        for (name, master) in [(&from.machine, false), (&to.machine, true)] {
            if let Some(machine) = state.machines.get_mut(name) {
                machine.master = master;
            }
        }
        Ok(())
    }

    async fn mend(&self, amphorae: &[rows::Amphora]) -> Result<Vec<Severed>> {
        self.is_known()?;
        let state = self.state();
        let cut = |one: &&rows::Amphora| {
            one.applied > 0 && state.machines.get(&one.machine).is_some_and(|machine| machine.cut)
        };
        let severed = |one: &rows::Amphora| {
            let port = one.ports.first()?.id.clone();
            Some(Severed { amphora: one.id.clone(), port: Some(port) })
        };
        Ok(amphorae.iter().filter(cut).filter_map(severed).collect())
    }

    async fn list(&self) -> Result<BTreeSet<String>> {
        self.is_known()?;
        Ok(self.state().machines.keys().cloned().collect())
    }
}
