//! Which load balancers are worked on, when: what is due, each by one task at a time, and so many at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Outside, Severed, Store, rows, spares, task::Context};
use crate::{
    error::Result,
    serve::{compute::Liveness, queue, status::AmphoraStatus},
};

/// How often is looked for what nobody has told of: machines without a row, objects without work.
const SWEEP: Duration = Duration::from_secs(30);

/// How long a look at all machines may take.
const LOOK: Duration = Duration::from_secs(20);

/// The pause after the database did not answer.
const TROUBLE: Duration = Duration::from_secs(1);

/// How long the tasks that are under way may go on when it is to end.
const LEAVE: Duration = Duration::from_secs(5);

/// Works until `stop` becomes true, and then for some seconds until the tasks under way have ended. `changes` counts what was written, `deaths`
/// the machines that have ended.
pub async fn run<S: Store, O: Outside>(
    context: Arc<Context<S, O>>,
    parallel: usize,
    mut changes: watch::Receiver<u64>,
    mut deaths: watch::Receiver<u64>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut running: HashMap<Id, String> = HashMap::new();
    let (mut sweep, mut again) = (Instant::now(), Instant::now());
    let (mut mended, mut failed) = (Instant::now(), false);
    while !*stop.borrow_and_update() {
        changes.borrow_and_update();
        if deaths.has_changed().unwrap_or(false) || sweep.min(again) <= Instant::now() {
            deaths.borrow_and_update();
            let known = in_time("look at amphorae", look(&context), &stop).await;
            again = Instant::now() + if known == Some(true) { SWEEP } else { TROUBLE };
        }
        let swept = sweep <= Instant::now();
        // What has failed may have failed for want of them.
        if swept || failed && mended + TROUBLE <= Instant::now() {
            in_time("look at links of amphorae", mend(&context), &stop).await;
            (mended, failed) = (Instant::now(), false);
        }
        if swept {
            in_time("collect what is left over", collect(&context), &stop).await;
            sweep = Instant::now() + SWEEP;
        }
        if *stop.borrow() {
            break;
        }
        let busy: BTreeSet<String> = running.values().cloned().collect();
        let wake = match due(&context.store, busy, parallel).await {
            Ok((due, next)) => {
                for id in due {
                    let (context, subject) = (Arc::clone(&context), id.clone());
                    let handle = tasks.spawn(async move {
                        match context.work(&subject).await {
                            Ok(done) => done,
                            Err(error) => {
                                tracing::error!(subject, %error, "a failure is not in the database");
                                sleep(TROUBLE).await;
                                true
                            }
                        }
                    });
                    running.insert(handle.id(), id);
                }
                let wait = next
                    .map(|at| Duration::from_millis(u64::try_from(at - context.store.now()).unwrap_or(0)));
                wait.map_or(sweep, |wait| (Instant::now() + wait).min(sweep))
            }
            Err(error) => {
                tracing::error!(%error, "cannot read what is to be done");
                Instant::now() + TROUBLE
            }
        };
        // Load balancers first.
        let idle = running.is_empty() && context.spares.size > 0;
        if (idle || swept)
            && let Err(error) = spares::keep(&context).await
        {
            tracing::error!(%error, "cannot look at spares");
        }
        let wake = if failed { wake.min(again).min(mended + TROUBLE) } else { wake.min(again) };
        tokio::select! {
            Ok(()) = changes.changed() => {}
            Ok(()) = deaths.changed() => deaths.mark_changed(),
            Ok(()) = stop.changed() => {}
            Some(ended) = tasks.join_next_with_id() => {
                let id = match &ended {
                    Ok((id, _)) => *id,
                    Err(error) => error.id(),
                };
                failed |= matches!(ended, Ok((_, false)));
                running.remove(&id);
            }
            () = sleep_until(wake) => {}
        }
    }
    // Who is left where he stands begins again at the next start.
    let _ = timeout(LEAVE, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Does what all work waits for, and leaves it when it takes too long, or nobody waits any more: it comes again.
async fn in_time<T>(
    what: &str,
    work: impl Future<Output = Result<T>>,
    stop: &watch::Receiver<bool>,
) -> Option<T> {
    let mut stop = stop.clone();
    let done = tokio::select! {
        biased;
        Ok(_) = stop.wait_for(|stop| *stop) => return None,
        done = timeout(LOOK, work) => done,
    };
    match done {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(error)) => tracing::error!(%error, "cannot {what}"),
        Err(_) => tracing::error!("cannot {what} within {} s", LOOK.as_secs()),
    }
    None
}

/// Whom to work on now, so that with those who are `busy` they are `parallel` at most and no project has more than half of the places, whose
/// machines may take minutes to boot; and when the next may be worked on.
async fn due<S: Store>(
    store: &S,
    busy: BTreeSet<String>,
    parallel: usize,
) -> Result<(Vec<String>, Option<i64>)> {
    let (now, share) = (store.now(), parallel.div_ceil(2));
    store
        .read(move |t| {
            let mut chosen = Vec::new();
            let mut places: HashMap<String, usize> = HashMap::new();
            for one in &busy {
                *places.entry(rows::project(t, one)?).or_default() += 1;
            }
            // An amphora's work is its load balancer's: several rows may be of one that is busy.
            for work in queue::due(t, now, usize::MAX)? {
                if busy.len() + chosen.len() >= parallel {
                    break;
                }
                let whose = rows::whose(t, work.kind, &work.subject)?;
                if busy.contains(&whose) || chosen.contains(&whose) {
                    continue;
                }
                let taken = places.entry(rows::project(t, &whose)?).or_default();
                if *taken < share {
                    *taken += 1;
                    chosen.push(whose);
                }
            }
            Ok((chosen, queue::next(t, now)?))
        })
        .await
}

/// Amphorae whose machine has ended are replaced. False when that could not be found out of each: those are left, and to be looked at
/// again.
pub async fn look<S: Store, O: Outside>(context: &Context<S, O>) -> Result<bool> {
    let all = context.store.read(rows::all_amphorae).await?;
    let (mut lost, mut unknown) = (Vec::new(), Vec::new());
    for amphora in
        all.into_iter().filter(|one| matches!(one.status, AmphoraStatus::Allocated | AmphoraStatus::Ready))
    {
        match context.outside.alive(&amphora).await {
            Ok(Liveness::Running) => {}
            Ok(Liveness::Dead | Liveness::Absent) => {
                tracing::warn!(amphora = amphora.id, "an amphora is lost");
                lost.push(amphora);
            }
            Err(error) => unknown.push(error),
        }
    }
    if let Some(error) = unknown.first() {
        tracing::warn!(count = unknown.len(), %error, "cannot tell whether amphorae run: they are left as they are");
    }
    if lost.is_empty() {
        return Ok(unknown.is_empty());
    }
    let now = context.store.now();
    context
        .store
        .write(move |t| {
            for amphora in lost {
                rows::silent(t, &amphora.id, now)?;
            }
            Ok(())
        })
        .await?;
    Ok(unknown.is_empty())
}

/// Bridges and links are brought to what they are to be, and amphorae of which one leads nowhere are replaced.
pub async fn mend<S: Store, O: Outside>(context: &Context<S, O>) -> Result<()> {
    let all = context.store.read(rows::all_amphorae).await?;
    let severed = context.outside.mend(&all).await?;
    if severed.is_empty() {
        return Ok(());
    }
    let now = context.store.now();
    context
        .store
        .write(move |t| {
            for Severed { amphora, port } in severed {
                // What is so before and after the look was so meanwhile: neither to be plugged in, nor unplugged, nor taken down.
                if rows::is_plugged(t, &amphora, port.as_deref())? {
                    tracing::warn!(amphora, port, "an amphora is lost: a link of it leads nowhere");
                    rows::silent(t, &amphora, now)?;
                }
            }
            Ok(())
        })
        .await
}

/// Takes down machines that no row names, and finds work for what is not as it is to be.
pub async fn collect<S: Store, O: Outside>(context: &Context<S, O>) -> Result<()> {
    // In this order: what is made after the list has a row before.
    let machines = context.outside.list().await?;
    let named: BTreeSet<String> =
        context.store.read(rows::all_amphorae).await?.into_iter().map(|one| one.machine).collect();
    let orphans = machines.difference(&named).cloned().collect::<Vec<_>>();
    stream::iter(orphans)
        .for_each_concurrent(8, |machine| async move {
            tracing::info!(machine, "removing what no row names");
            if let Err(error) = context.outside.remove(&machine).await {
                tracing::error!(machine, %error, "cannot remove what no row names");
            }
        })
        .await;
    let now = context.store.now();
    let networks = context.networks.clone();
    let mut adopted = context.store.write(move |t| rows::adopt(t, now)).await?;
    let known = networks.clone();
    let lacking = context.store.read(move |t| rows::lacking(t, &known)).await?;
    if !lacking.is_empty() {
        let plug = move |t: &_| rows::plug_what_lacks(t, &networks, &lacking, now);
        adopted += context.store.write(plug).await?;
    }
    if adopted > 0 {
        tracing::warn!(adopted, "found work that nobody had asked for");
    }
    Ok(())
}
