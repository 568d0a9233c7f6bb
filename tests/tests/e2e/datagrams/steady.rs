//! Clients that ask all the time, while what they ask changes.

use std::{sync::Mutex, time::Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{lasts::children, *};

/// An answer: when it was asked for, and the member that gave it; `None`: nobody for so long, or an error.
type Answer = (Instant, Option<u8>);

/// Longer than anybody here is kept from its work.
const LONG: Duration = Duration::from_secs(5);

/// Flows that ask one thing after the other.
struct Steady {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    answers: Vec<Arc<Mutex<Vec<Answer>>>>,
}

impl Steady {
    fn begin(flows: Vec<Flow>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers: Vec<_> = flows.iter().map(|_| Arc::<Mutex<Vec<Answer>>>::default()).collect();
        let ask = |(flow, answers): (Flow, &Arc<Mutex<Vec<Answer>>>)| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(answers));
            flow.0.set_read_timeout(Some(LONG)).unwrap();
            std::thread::spawn(move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (asked, number) = (Instant::now(), number.to_be_bytes());
                    let answer = flow.ask(&number).ok().filter(|answer| answer.2 == number);
                    answers.lock().unwrap().push((asked, answer.map(|(member, ..)| member)));
                    std::thread::sleep(Duration::from_micros(200));
                }
            })
        };
        let threads = flows.into_iter().zip(&answers).map(ask).collect();
        Self { stop, threads, answers }
    }

    /// Until every flow has asked anew, and was answered or not.
    async fn go_on(&self) {
        let since = Instant::now();
        let asked = |answers: &Arc<Mutex<Vec<Answer>>>| {
            answers.lock().unwrap().last().is_some_and(|(asked, _)| *asked > since)
        };
        eventually("all have asked again", async || self.answers.iter().all(asked).then_some(())).await;
    }

    fn end(self) -> Vec<Vec<Answer>> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.answers.iter().map(|answers| std::mem::take(&mut *answers.lock().unwrap())).collect()
    }
}

type Change = Box<dyn FnOnce(&mut Document)>;

/// What changes nothing for flows that there are.
fn changes(fourth: &Member, other: &Listener) -> Vec<Change> {
    let pool = |change: &dyn Fn(Pool) -> Pool, document: &mut Document| {
        document.pools[0] = change(document.pools[0].clone());
    };
    let mut changes: Vec<Change> = Vec::new();
    let (fourth, other) = (fourth.clone(), other.clone());
    changes.push(Box::new(move |document| document.pools[0].members.push(fourth)));
    changes.push(Box::new(|document| drop(document.pools[0].members.pop())));
    for weight in [0, 256] {
        changes.push(Box::new(move |document| {
            document.pools[0].members.iter_mut().for_each(|member| *member = member.clone().weight(weight));
        }));
    }
    for algorithm in ["LEAST_CONNECTIONS", "SOURCE_IP", "ROUND_ROBIN"] {
        changes.push(Box::new(move |document| pool(&|pool| pool.balanced_by(algorithm), document)));
    }
    for persistence in [json!({ "type": "SOURCE_IP", "persistence_timeout": 60 }), json!(null)] {
        changes.push(Box::new(move |document| {
            pool(&|pool| pool.with("session_persistence", persistence.clone()), document);
        }));
    }
    let cidrs = json!(["203.0.113.0/25", "2001:db8:50::/64"]);
    for (field, value) in [
        ("connection_limit", json!(100)),
        ("connection_limit", json!(50)),
        ("connection_limit", json!(-1)),
        ("allowed_cidrs", cidrs),
        ("allowed_cidrs", json!([])),
    ] {
        changes.push(Box::new(move |document| {
            document.listeners[0] = document.listeners[0].clone().with(field, value);
        }));
    }
    changes.push(Box::new(move |document| document.listeners.push(other)));
    changes.push(Box::new(|document| document.listeners.reverse()));
    changes.push(Box::new(|document| drop(document.listeners.remove(0))));
    changes.push(Box::new(move |document| {
        pool(&|pool| pool.monitored(&HealthMonitor::new("UDP-CONNECT")), document);
    }));
    changes
}

#[tokio::test]
async fn who_stays_loses_nothing_and_who_goes_loses_nothing_more() {
    let Some(network) = Network::create() else { return };
    for (v4, client) in [(true, CLIENT), (false, CLIENT6)] {
        let mut echoes = Vec::new();
        for number in 2..6 {
            echoes.push(network.member(number, v4).await);
        }
        let three = pool(echoes[..3].iter().map(|echo| (echo, 1)));
        let mut proxy = network.proxy(document(&three)).await;
        let (_, flows) = network.spread(client, 12).await;
        let members: Vec<u8> = flows.iter().map(Flow::member).collect();
        let steady = Steady::begin(flows);
        let fourth = Member::at(echoes[3].address);
        for change in changes(&fourth, &Listener::udp().port(54).to(&three)) {
            proxy.change(change).await;
            steady.go_on().await;
        }
        proxy.until_member(0, "it is checked", |member| member.check.to_string() == "UP").await;

        // Who forwards dies, and another hand was there meanwhile.
        let helpers = children(proxy.pid());
        network.nft(&["flush", "chain", "inet", "amphora_datagram", "in"]);
        kill(Pid::from_raw(helpers[1]), Signal::SIGKILL).unwrap();
        eventually("the other one takes over", async || {
            proxy.log().contains("another goes on").then_some(())
        })
        .await;
        proxy.change(|document| document.pools[0].members.push(fourth)).await;
        steady.go_on().await;
        // All die at once, and come again.
        kill(Pid::from_raw(helpers[0]), Signal::SIGKILL).unwrap();
        proxy.signal(Signal::SIGKILL);
        proxy.ended().await;
        steady.go_on().await;
        let mut proxy = network.proxy(proxy.document.clone()).await;
        steady.go_on().await;

        // The member of the first flow goes. What is on its way then may be lost.
        let first = members[0];
        let before = Instant::now();
        proxy.change(|document| drop(document.pools[0].members.remove(usize::from(first) - 2))).await;
        let after = Instant::now();
        steady.go_on().await;
        for (member, answers) in members.into_iter().zip(steady.end()) {
            // One was on its way.
            let sure = answers.iter().filter(|(asked, _)| *asked < before).count() - 1;
            let mut moved = None;
            for (index, (asked, answer)) in answers.into_iter().enumerate() {
                if member != first || index < sure {
                    assert_eq!(answer, Some(member), "{:?} before", before.saturating_duration_since(asked));
                } else if asked > after {
                    assert!(answer.is_some_and(|now| now != first && moved.is_none_or(|moved| moved == now)));
                    moved = answer;
                }
            }
            assert_eq!(moved.is_some(), member == first);
        }
    }
}
