//! The work on one load balancer, from the first step to the last.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    Outside, STEP, Store, Taken, Told,
    plan::{Seen, Step, View, roles},
    rows::{self, Amphora, LoadBalancer},
    spares::Spares,
};
use crate::{
    error::{Error, Result},
    serve::{
        compute::Liveness,
        config::Subnet,
        document,
        metrics::{Outcome, metrics},
        network::Networks,
        queue::{self, Kind},
        status::{AmphoraStatus, Topology},
    },
};

/// What tasks have in common.
#[derive(Debug)]
pub struct Context<S, O> {
    /// The database.
    pub store: S,
    /// Machines and agents.
    pub outside: O,
    /// Networks of the configuration.
    pub networks: Networks,
    /// Ports of agents on this host, first and last.
    pub agent_ports: (u16, u16),
    /// Amphorae that wait for a load balancer.
    pub spares: Spares,
    /// Where virtual machines have their agents.
    pub management: Subnet,
}

/// More steps than any load balancer takes from one change to the next: beyond it something goes round in circles.
const STEPS: usize = 64;

impl<S: Store, O: Outside> Context<S, O> {
    /// Works on a load balancer, or on an amphora that has none, until nothing is to be done. A failure is written down, and one of an agent that
    /// is to be configured is that agent's alone. False when something of the load balancer has failed.
    ///
    /// # Errors
    /// It could not be written down: nothing says when to try again.
    pub async fn work(self: &Arc<Self>, id: &str) -> Result<bool> {
        let (subject, now) = (id.to_owned(), self.store.now());
        let is_more_due = self.store.read(move |t| rows::is_more_due(t, &subject, now)).await?;
        let done = !is_more_due || self.work_on(id).await?;
        self.configure(id).await?;
        Ok(done)
    }

    async fn work_on(self: &Arc<Self>, id: &str) -> Result<bool> {
        let Err(error) = self.steps(id).await else { return Ok(true) };
        let (subject, reason, now) = (id.to_owned(), error.to_string(), self.store.now());
        tracing::warn!(load_balancer = id, reason, "what is asked for is not so yet");
        let jitter = jitter();
        let replaces = self.store.write(move |t| {
            rows::failed(t, &subject, &reason, now, jitter)?;
            rows::is_failing_over(t, &subject)
        });
        if replaces.await? {
            metrics().failed_over(Outcome::Failed);
        }
        Ok(false)
    }

    async fn steps(self: &Arc<Self>, id: &str) -> Result<()> {
        let (mut left, mut generation, mut untold) = (STEPS, None, false);
        while left > 0 {
            let subject = id.to_owned();
            let found = self.store.read(move |t| rows::load_balancer(t, &subject)).await?;
            let Some(lb) = found else { return self.single(id).await };
            // Who changes it all the time makes no failure of it.
            if generation.replace(lb.generation) == Some(lb.generation) {
                left -= 1;
            } else {
                (left, untold) = (STEPS, false);
            }
            let step = View { untold, ..self.view(&lb).await? }.next();
            tracing::debug!(load_balancer = id, ?step, "next");
            let last = matches!(step, Step::Finish | Step::Delete);
            let may_fail = matches!(step, Step::KeepUp(_));
            let most = STEP + self.boot_time(&lb, &step);
            let done = timeout(most, self.take(&lb, step.clone())).await;
            let done = done.unwrap_or_else(|_| {
                Err(Error::NotDone(format!("{step:?} took longer than {} s", most.as_secs())))
            });
            match done {
                Err(error) if may_fail => {
                    tracing::debug!(load_balancer = id, %error, "what serves is not told of a change");
                    untold = true;
                }
                done => done?,
            }
            if last {
                let subject = id.to_owned();
                let more =
                    self.store.read(move |t| Ok(queue::find(t, Kind::LoadBalancer, &subject)?)).await?;
                if more.is_none_or(|work| work.attempts > 0) {
                    return Ok(());
                }
            }
        }
        Err(Error::Local(format!("{id} is not so after {STEPS} steps")))
    }

    /// An amphora without a load balancer, or nothing at all.
    async fn single(&self, id: &str) -> Result<()> {
        let subject = id.to_owned();
        let Some(amphora) = self.store.read(move |t| rows::amphora(t, &subject)).await? else {
            let subject = id.to_owned();
            return self
                .store
                .write(move |t| {
                    Kind::ALL.into_iter().try_for_each(|kind| queue::done(t, kind, &subject))?;
                    Ok(())
                })
                .await;
        };
        if amphora.leaving || amphora.status == AmphoraStatus::PendingDelete {
            return self.remove(None, &amphora).await;
        }
        if amphora.status == AmphoraStatus::Booting {
            return self.make_spare(&amphora).await;
        }
        self.configure_one(&amphora, amphora.topology == Topology::ActiveStandby).await
    }

    async fn make_spare(&self, amphora: &Amphora) -> Result<()> {
        let (id, ports) = (amphora.id.clone(), self.agent_ports);
        let subject = id.clone();
        let work = self.store.read(move |t| Ok(queue::find(t, Kind::AmphoraCreate, &subject)?)).await?;
        let again = work.is_some_and(|work| work.attempts > 0);
        if again || matches!(self.outside.alive(amphora).await, Ok(Liveness::Dead)) {
            // Who knows what is wrong with this one, or who else has its port.
            self.outside.remove(&amphora.machine).await?;
            let subject = id.clone();
            self.store.write(move |t| rows::move_agent(t, &subject, ports)).await?;
        }
        let subject = id.clone();
        let Some(amphora) = self.store.read(move |t| rows::amphora(t, &subject)).await? else {
            return Ok(());
        };
        let given = self.outside.boot(&amphora, amphora.topology == Topology::ActiveStandby).await?;
        let now = self.store.now();
        self.store.write(move |t| rows::ready(t, &id, &given, now)).await
    }

    async fn view(self: &Arc<Self>, lb: &LoadBalancer) -> Result<View> {
        let (this, subject) = (Arc::clone(self), lb.clone());
        let idle = async {
            let idle = self.store.read(move |t| rows::idle_ports(t, &this.networks, &subject));
            Ok::<_, Error>(lb.active && !idle.await?.is_empty())
        };
        let seen = join_all(lb.amphorae.iter().map(|one| async {
            Seen {
                id: one.id.clone(),
                made: one.made,
                status: one.status,
                role: one.role,
                applied: one.applied,
                leaving: one.leaving,
                liveness: self.liveness(one).await,
                master: None,
            }
        }));
        let mut view = View {
            topology: lb.topology,
            going: lb.going,
            generation: lb.generation,
            replace_before: lb.failover,
            attempts: lb.attempts,
            untold: false,
            idle_ports: idle.await?,
            amphorae: seen.await,
        };
        if view.wants_masters() {
            let masters = join_all(lb.amphorae.iter().map(|one| self.outside.is_master(one))).await;
            view.amphorae.iter_mut().zip(masters).for_each(|(one, master)| one.master = master);
        }
        Ok(view)
    }

    /// How a machine is; `None`, which is said, when that cannot be found out.
    async fn liveness(&self, amphora: &Amphora) -> Option<Liveness> {
        let alive = self.outside.alive(amphora).await;
        alive
            .inspect_err(|error| tracing::warn!(amphora = amphora.id, %error, "cannot tell whether it runs"))
            .ok()
    }

    /// What the machines of a step may take to boot, at once.
    fn boot_time(&self, lb: &LoadBalancer, step: &Step) -> Duration {
        let Step::Boot(ids) = step else { return Duration::ZERO };
        let booting = lb.amphorae.iter().filter(|one| ids.contains(&one.id));
        booting.map(|one| self.outside.boot_time(&one.machine)).max().unwrap_or_default()
    }

    async fn take(self: &Arc<Self>, lb: &LoadBalancer, step: Step) -> Result<()> {
        let (id, now) = (lb.id.clone(), self.store.now());
        match step {
            Step::Add(count) => self.add(lb, count).await,
            Step::Boot(ids) => {
                let paired = lb.topology == Topology::ActiveStandby;
                tokio::select! {
                    biased;
                    done = each(lb, &ids, |one| self.boot(one, paired)) => done,
                    // Else who deletes it waits for what he no longer wants.
                    () = self.unwanted(&lb.id) => Ok(()),
                    () = self.keep_up(&lb.id) => Ok(()),
                }
            }
            Step::Retire(ids) => {
                tracing::info!(load_balancer = id, amphorae = ?ids, "taken out");
                self.store.write(move |t| ids.iter().try_for_each(|id| rows::retire(t, id, now))).await
            }
            Step::Remove(ids) => each(lb, &ids, |one| self.remove(Some(lb), one)).await,
            Step::Apply(ids) | Step::KeepUp(ids) => self.apply(lb, &ids).await,
            Step::HandOver { from, to } => {
                let find = |id: &str| {
                    let found = lb.amphorae.iter().find(|one| one.id == id);
                    found.ok_or_else(|| Error::Local(format!("no amphora {id}")))
                };
                self.outside.hand_over(find(&from)?, find(&to)?).await
            }
            Step::Finish => {
                let (generation, failover, now) = (lb.generation, lb.failover, self.store.now());
                let this = Arc::clone(self);
                let made = self.store.write(move |t| {
                    let made = rows::is_made_by(t, &id, generation)?;
                    if !rows::finish(t, &id, generation, failover, now)? {
                        return Ok(None);
                    }
                    // It is ACTIVE before what nobody needs is gone.
                    let idle = match rows::load_balancer(t, &id)?.filter(|lb| lb.active) {
                        Some(lb) => !rows::idle_ports(t, &this.networks, &lb)?.is_empty(),
                        None => false,
                    };
                    if idle {
                        queue::enqueue(t, Kind::LoadBalancer, &id, now)?;
                    }
                    Ok(made)
                });
                if let Some(begun) = made.await? {
                    let took = self.store.now().saturating_sub(begun);
                    metrics().created(Duration::from_millis(u64::try_from(took).unwrap_or_default()));
                }
                Ok(())
            }
            Step::Unplug => {
                tokio::select! {
                    biased;
                    done = self.unplug(&lb.id) => done,
                    // Nobody waits for what nobody needs.
                    () = self.changed_since(&lb.id, lb.generation) => Ok(()),
                }
            }
            Step::Delete => self.store.write(move |t| rows::delete(t, &id)).await,
        }
    }

    async fn add(self: &Arc<Self>, lb: &LoadBalancer, count: usize) -> Result<()> {
        let now = self.store.now();
        let new = (0..count).map(|_| {
            let id = Uuid::new_v4().to_string();
            Ok(rows::New {
                machine: self.outside.name(&lb.driver, &id)?,
                id,
                driver: lb.driver.clone(),
                flavor: lb.flavor.clone(),
                agent_ports: self.agent_ports,
                management: self.management.clone(),
                expires: now.saturating_add(self.outside.validity_ms()),
            })
        });
        let new = new.collect::<Result<Vec<_>>>()?;
        let (this, lb) = (Arc::clone(self), lb.clone());
        self.store
            .write(move |t| {
                for new in &new {
                    // A spare is as good, and there already.
                    if !rows::take(t, &this.networks, &lb, now)? {
                        rows::add(t, &this.networks, &lb, new, now)?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn boot(&self, amphora: &Amphora, paired: bool) -> Result<()> {
        let (id, now) = (amphora.id.clone(), self.store.now());
        let given = match self.outside.boot(amphora, paired).await {
            Ok(given) => given,
            Err(error) => {
                // The next attempt has another machine: who knows what is wrong with this one.
                self.store.write(move |t| rows::retire(t, &id, now)).await?;
                return Err(error);
            }
        };
        self.store.write(move |t| rows::booted(t, &id, &given, now)).await
    }

    async fn remove(&self, lb: Option<&LoadBalancer>, amphora: &Amphora) -> Result<()> {
        self.outside.remove(&amphora.machine).await?;
        // One that has carried a load balancer which goes on.
        let is_replaced = amphora.role.is_some() && lb.is_some_and(|lb| !lb.going);
        let (id, lb) = (amphora.id.clone(), lb.cloned());
        self.store.write(move |t| rows::removed(t, lb.as_ref(), &id)).await?;
        if is_replaced {
            metrics().failed_over(Outcome::Done);
        }
        Ok(())
    }

    /// Unplugs what nobody needs. May be cancelled.
    async fn unplug(self: &Arc<Self>, id: &str) -> Result<()> {
        let (this, subject) = (Arc::clone(self), id.to_owned());
        let idle = self.store.write(move |t| rows::let_go(t, &this.networks, &subject)).await?;
        for (amphora, port) in idle {
            self.outside.unplug(&amphora, &port).await?;
            tracing::info!(load_balancer = id, amphora = amphora.id, address = %port.address, "a port is unplugged");
            self.store.write(move |t| rows::unplugged(t, &port.id)).await?;
        }
        Ok(())
    }

    /// Tells those of these what they are to be.
    pub(super) async fn apply(self: &Arc<Self>, lb: &LoadBalancer, ids: &[String]) -> Result<()> {
        let (this, id, now) = (Arc::clone(self), lb.id.clone(), self.store.now());
        let read = self
            .store
            .read(move |t| {
                let Some(lb) = rows::load_balancer(t, &id)? else { return Ok(None) };
                let lacks = rows::lacks_ports(t, &this.networks, &lb)?;
                let rendered = document::render(t, &id)?;
                Ok(rendered.map(|rendered| (lb, rendered, lacks)))
            })
            .await?;
        // What came meanwhile is looked at by the next step.
        let Some((lb, rendered, lacks)) = read else { return Ok(()) };
        if lacks {
            let (this, lb) = (Arc::clone(self), lb.clone());
            return self.store.write(move |t| rows::reach_members(t, &this.networks, &lb, now)).await;
        }
        let chosen: Vec<&Amphora> = lb.amphorae.iter().filter(|one| ids.contains(&one.id)).collect();
        // One of a pair that is told alone has the role that the other one has not.
        let together: Vec<&Amphora> = if chosen.len() > 1 {
            chosen.clone()
        } else {
            lb.amphorae.iter().filter(|one| !one.is_going()).collect()
        };
        let given = roles(lb.topology, &together.iter().map(|one| one.role).collect::<Vec<_>>());
        let roles = together.iter().map(|one| one.id.clone()).zip(given).collect();
        let told = Told { lb: lb.clone(), rendered, roles };
        let told = &told;
        let apply = |one: &Amphora| {
            let one = one.clone();
            async move {
                let begin = Instant::now();
                let taken = self.outside.apply(told, &one).await;
                let wholly = taken.as_ref().is_ok_and(|taken| taken.lacking.is_none());
                metrics().applied(if wholly { Outcome::Done } else { Outcome::Failed }, begin.elapsed());
                let Taken { document, lacking } = taken?;
                let applied = rows::Applied {
                    generation: wholly.then_some(told.rendered.generation),
                    document,
                    role: told.role(&one.id),
                };
                let now = self.store.now();
                self.store.write(move |t| rows::applied(t, &one.id, &applied, now)).await?;
                lacking.map_or(Ok(()), Err)
            }
        };
        // Each has a chance, whatever becomes of the other.
        join_all(chosen.into_iter().map(apply)).await.into_iter().collect()
    }

    /// Does what was asked for of agents alone, until more is asked for: whoever does not answer keeps nobody waiting.
    async fn configure(self: &Arc<Self>, id: &str) -> Result<()> {
        let (subject, now) = (id.to_owned(), self.store.now());
        let found = self.store.read(move |t| rows::due_agents(t, &subject, now)).await?;
        let Some((lb, agents)) = found.filter(|(_, agents)| !agents.is_empty()) else { return Ok(()) };
        let paired = lb.topology == Topology::ActiveStandby;
        tokio::select! {
            biased;
            done = join_all(agents.iter().map(|one| self.configure_agent(one, paired))) => done.into_iter().collect(),
            () = self.more_is_due(id) => Ok(()),
        }
    }

    /// The same of one of them. A failure is written down.
    async fn configure_agent(&self, amphora: &Amphora, paired: bool) -> Result<()> {
        let Err(error) = self.configure_one(amphora, paired).await else { return Ok(()) };
        let (id, reason, now, jitter) = (amphora.id.clone(), error.to_string(), self.store.now(), jitter());
        tracing::warn!(amphora = id, reason, "an agent is not configured yet");
        self.store
            .write(move |t| Ok(queue::failed(t, Kind::AmphoraConfigure, &id, &reason, now, jitter)?))
            .await
    }

    async fn configure_one(&self, amphora: &Amphora, paired: bool) -> Result<()> {
        if amphora.configure {
            let given = timeout(STEP, self.outside.configure(amphora, paired)).await;
            let late = || {
                Error::NotDone(format!("the agent of {} did not answer for {} s", amphora.id, STEP.as_secs()))
            };
            let (id, given) = (amphora.id.clone(), given.unwrap_or_else(|_| Err(late()))?);
            self.store.write(move |t| rows::configured(t, &id, &given)).await?;
        }
        Ok(())
    }
}

/// Does the same with each of these, and fails with the first failure when all have ended.
async fn each<'a, F: Future<Output = Result<()>>>(
    lb: &'a LoadBalancer,
    ids: &[String],
    work: impl Fn(&'a Amphora) -> F,
) -> Result<()> {
    let chosen = lb.amphorae.iter().filter(|one| ids.contains(&one.id));
    join_all(chosen.map(work)).await.into_iter().collect()
}

/// From 0 to 1.
fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness all pauses are alike, which is no harm.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
