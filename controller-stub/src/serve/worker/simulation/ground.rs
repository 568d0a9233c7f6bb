//! A database in memory, and machines that do as a seed says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use amphora_agent::heartbeat::mark;
use futures_util::FutureExt;
use rusqlite::Connection;
use tokio::sync::{Notify, watch};

use super::Random;
use crate::{
    error::{Error, Result},
    serve::{
        compute::Liveness,
        config::Config,
        db,
        network::Networks,
        queue,
        status::{Role, Topology},
        worker::{
            Given, Outside, Store, Told, rows, schedule,
            spares::{self, Spares},
            task::Context,
        },
    },
};

/// What a machine is.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) amphora: String,
    pub(super) runs: bool,
    /// The documents that it was told.
    pub(super) document: Option<serde_json::Value>,
    pub(super) master: bool,
    /// The other one of its pair, as it was told, and its own role.
    pub(super) other: Option<(String, Role)>,
}

pub(super) struct State {
    pub(super) connection: Connection,
    _dir: tempfile::TempDir,
    pub(super) now: i64,
    pub(super) random: Random,
    pub(super) machines: BTreeMap<String, Machine>,
    /// Points until it is killed.
    pub(super) lives: Option<u32>,
    /// Spares that there are to be.
    pub(super) spares: usize,
    /// Of a thousand things that are done outside, so many fail.
    pub(super) failing: u64,
    /// No machine that is made answers.
    pub(super) hangs: bool,
    pub(super) points: u64,
}

#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    killed: Arc<Notify>,
    changed: Arc<watch::Sender<u64>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let (dir, connection) = db::scratch();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let state = State {
            connection,
            _dir: dir,
            now: 1_000_000,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            machines: BTreeMap::new(),
            lives: None,
            spares: 0,
            failing: 0,
            hangs: false,
            points: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), killed: Arc::default(), changed: Arc::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Here it may be killed.
    async fn point(&self) {
        let dies = {
            let mut state = self.state();
            state.points += 1;
            match &mut state.lives {
                Some(0) => true,
                Some(lives) => {
                    *lives -= 1;
                    false
                }
                None => false,
            }
        };
        if dies {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn fails(&self, what: &str) -> Result<()> {
        let mut state = self.state();
        let failing = state.failing;
        if state.random.next(1000) < failing { Err(Error::NotDone(format!("{what} fails"))) } else { Ok(()) }
    }

    fn context(&self) -> Arc<Context<Self, Self>> {
        let networks = Networks::new(Config::parse("").unwrap().networks);
        Arc::new(Context {
            store: self.clone(),
            outside: self.clone(),
            networks,
            agent_ports: (20_000, 20_099),
            spares: Spares { size: self.state().spares, topology: Topology::Single },
            management: Config::parse("").unwrap().compute.management.subnets[0],
        })
    }

    /// A `serve` from its start until nothing is to be done, or it is killed. True when it was not.
    pub(super) async fn serve(&self) -> bool {
        // What of the last one came to its end at the same time.
        let _ = self.killed.notified().now_or_never();
        let work = async {
            let context = self.context();
            while schedule::look(&context).await.is_err() || schedule::collect(&context).await.is_err() {}
            loop {
                let now = Store::now(self);
                let (due, next) = self
                    .read(move |t| {
                        let due = queue::due(t, now, 100)?;
                        let whose: Result<BTreeSet<String>> =
                            due.iter().map(|work| rows::whose(t, work.kind, &work.subject)).collect();
                        Ok((whose?, queue::next(t, now)?))
                    })
                    .await
                    .unwrap();
                if due.is_empty() && spares::keep(&context).await.is_ok_and(|more| more) {
                    continue;
                }
                if due.is_empty() {
                    let Some(next) = next else { break };
                    self.state().now = next;
                }
                for id in due {
                    let _ = context.work(&id).await;
                    self.state().now += 7;
                }
            }
        };
        tokio::select! {
            () = work => true,
            () = self.killed.notified() => false,
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
        let result = {
            let mut state = self.state();
            let transaction = state.connection.transaction()?;
            let result = piece(&transaction);
            if result.is_ok() {
                transaction.commit()?;
                self.changed.send_modify(|count| *count += 1);
            }
            result
        };
        self.point().await;
        result
    }

    async fn read<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        query(&self.state().connection)
    }

    fn now(&self) -> i64 {
        self.state().now
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Outside for World {
    fn driver(&self) -> &'static str {
        "namespaces"
    }

    fn name(&self, _: &str, amphora: &str) -> Result<String> {
        Ok(format!("m-{amphora}"))
    }

    fn boot_time(&self, _: &str) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn validity_ms(&self) -> i64 {
        1000
    }

    async fn alive(&self, amphora: &rows::Amphora) -> Liveness {
        match self.state().machines.get(&amphora.machine) {
            None => Liveness::Absent,
            Some(machine) if machine.runs => Liveness::Running,
            Some(_) => Liveness::Dead,
        }
    }

    async fn boot(&self, amphora: &rows::Amphora, _: bool) -> Result<Given> {
        self.point().await;
        {
            let mut state = self.state();
            let named: bool = state
                .connection
                .query_row("SELECT EXISTS (SELECT 1 FROM amphora WHERE id = ?1)", [&amphora.id], |row| {
                    row.get(0)
                })
                .unwrap();
            assert!(named, "a machine that no row names");
            let new = Machine {
                amphora: amphora.id.clone(),
                runs: true,
                document: None,
                master: false,
                other: None,
            };
            state.machines.entry(amphora.machine.clone()).or_insert(new);
        }
        self.point().await;
        if self.state().hangs {
            std::future::pending::<()>().await;
        }
        self.fails("to boot")?;
        Ok(Given { ends: self.state().now + 1000, trust: None })
    }

    async fn remove(&self, machine: &str) -> Result<()> {
        self.point().await;
        self.fails("to remove")?;
        self.state().machines.remove(machine);
        self.point().await;
        Ok(())
    }

    async fn apply(&self, told: &Told, amphora: &rows::Amphora) -> Result<String> {
        self.point().await;
        self.fails("to apply")?;
        {
            let mut state = self.state();
            let others: Vec<String> =
                told.lb.amphorae.iter().map(|one| one.id.clone()).filter(|id| *id != amphora.id).collect();
            let serving = state
                .machines
                .values()
                .filter(|machine| machine.document.is_some() && others.contains(&machine.amphora))
                .count();
            let allowed = usize::from(told.lb.topology == Topology::ActiveStandby);
            assert!(serving <= allowed, "{serving} others have the addresses of {}", amphora.id);
            if told.lb.topology == Topology::ActiveStandby {
                assert_eq!(told.other(amphora).is_some(), !others.is_empty());
            }
            let first =
                !state.machines.values().any(|machine| machine.master && others.contains(&machine.amphora));
            let machine =
                state.machines.get_mut(&amphora.machine).ok_or_else(|| Error::NotDone("gone".to_owned()))?;
            if !machine.runs {
                return Err(Error::NotDone("no answer".to_owned()));
            }
            machine.document = Some(told.rendered.document.clone());
            machine.master |= first;
            // As an agent is told of its ports and of the other only when it has to be told everything.
            if amphora.applied == 0 {
                machine.other = told.other(amphora).map(|other| (other.id.clone(), told.role(&amphora.id)));
            }
        }
        self.point().await;
        Ok(mark(told.rendered.document.to_string().as_bytes()))
    }

    async fn unplug(&self, _: &rows::Amphora, _: &rows::Port) -> Result<()> {
        unreachable!("no members, no ports")
    }

    async fn configure(&self, _: &rows::Amphora, _: bool) -> Result<Given> {
        self.point().await;
        Ok(Given { ends: self.state().now + 1000, trust: None })
    }

    async fn is_master(&self, amphora: &rows::Amphora) -> Option<bool> {
        self.state()
            .machines
            .get(&amphora.machine)
            .filter(|machine| machine.runs)
            .map(|machine| machine.master)
    }

    async fn hand_over(&self, from: &rows::Amphora, to: &rows::Amphora) -> Result<()> {
        self.point().await;
        self.fails("to hand over")?;
        let mut state = self.state();
        assert!(state.machines.get(&to.machine).is_none_or(|machine| machine.document.is_some()));
        for (name, master) in [(&from.machine, false), (&to.machine, true)] {
            if let Some(machine) = state.machines.get_mut(name) {
                machine.master = master;
            }
        }
        Ok(())
    }

    async fn list(&self) -> Result<BTreeSet<String>> {
        Ok(self.state().machines.keys().cloned().collect())
    }
}
