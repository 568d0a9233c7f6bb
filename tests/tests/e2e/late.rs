//! A change that takes longer than the agent is patient: it answers 504, and whatever becomes of the change, agent and
//! proxy agree on what runs afterwards.

use amphora_tests::{Amphora, Backend, Client, Document, eventually, kill_hard, signal};
use nix::sys::signal::Signal;

/// Two documents of one load balancer, and the members that say which of them serves.
struct Change {
    before: Document,
    after: Document,
    _members: [Backend; 2],
}

impl Change {
    async fn new() -> Self {
        let members = [Backend::named("before").await, Backend::named("after").await];
        let before = Document::http(&members[..1]);
        let other = Document::http(&members[1..]);
        let mut after = before.clone();
        after.pools[0].members = other.pools[0].members.clone();
        Self { before, after, _members: members }
    }

    /// Whether the proxy says that it runs the first of the two, which it tells in words of its own.
    async fn is_undone(&self, amphora: &Amphora) -> Option<()> {
        let running = amphora.running().await?.to_string();
        let has = |document: &Document| running.contains(&document.pools[0].members[0].id.to_string());
        (has(&self.before) && !has(&self.after)).then_some(())
    }
}

/// The proxy stands still while the agent waits for it.
async fn stalled(amphora: &mut Amphora, change: &Change) -> u32 {
    // One that did not know yet that the proxy runs what is stored would look at it in any case.
    amphora.kill_agent();
    amphora.start_agent().await;
    eventually("the agent has looked", async || amphora.log().contains("document runs").then_some(())).await;
    let proxy = amphora.info().await.unwrap().pid;
    signal(proxy, Signal::SIGSTOP);
    let refusal = amphora.refusal(&change.after);
    assert!(refusal.contains("504"), "{refusal}");
    assert_eq!(amphora.stored(), change.before.to_json(), "what was stored was taken back");
    proxy
}

async fn agree(amphora: &Amphora, change: &Change) {
    assert_eq!(change.is_undone(amphora).await, Some(()));
    assert_eq!(amphora.stored(), change.before.to_json());
    let answer = Client::connect(change.before.address()).await.get("/").await;
    assert_eq!(answer.body, b"before");
    let generation = amphora.info().await.unwrap().generation;
    amphora.apply(&change.before);
    assert_eq!(amphora.info().await.unwrap().generation, generation, "there was nothing to change");
    amphora.apply(&change.after);
    let answer = Client::connect(change.after.address()).await.get("/").await;
    assert_eq!(answer.body, b"after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_comes_about_after_its_504_is_taken_back() {
    let Some(mut amphora) = Amphora::start_with("proxy_timeout = 1\n").await else { return };
    let change = Change::new().await;
    amphora.apply(&change.before);
    let generation = amphora.info().await.unwrap().generation;
    let proxy = stalled(&mut amphora, &change).await;
    signal(proxy, Signal::SIGCONT);
    eventually("the change has come about and is undone", async || {
        // The change is one generation, and undoing it another.
        amphora.info().await.filter(|info| info.generation == generation + 2)?;
        change.is_undone(&amphora).await
    })
    .await;
    agree(&amphora, &change).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_never_arrives_after_its_504_leaves_what_was_before() {
    let Some(mut amphora) = Amphora::start_with("proxy_timeout = 1\n").await else { return };
    let change = Change::new().await;
    amphora.apply(&change.before);
    let before = amphora.info().await.unwrap();
    let proxy = stalled(&mut amphora, &change).await;
    kill_hard(proxy);
    eventually("another proxy runs what was before", async || {
        let info = amphora.info().await.filter(|info| info.instance != before.instance)?;
        info.loadbalancer?;
        change.is_undone(&amphora).await
    })
    .await;
    agree(&amphora, &change).await;
}
