//! Whole load balancers: Octavia's own templates render them, HAProxy runs the text, and so does this amphora, which is given what it has
//! read out of the very same text. Both are asked the same, and everything that a client, a member or a reader of logs can tell is compared.
//!
//! Cases are generated from seeds: the first [`CASES`] of them and those [`KNOWN`], or, with `AMPHORA_WHOLE_SECONDS`, as many as are done in that time.
//! `AMPHORA_WHOLE_SEED` says where to begin; with `AMPHORA_WHOLE_ONLY` that seed is the only one.
//! Cases of even seeds, or all with `AMPHORA_WHOLE_BY_API`, come to the proxy as they do in an amphora: uploaded to an agent, as by Octavia's driver.

mod agent;
mod balanced;
mod client;
mod compare;
mod generate;
mod member;
mod more;
mod render;
mod shrink;
mod side;
mod trial;
mod wire;

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_agent::octavia::haproxy_cfg::{Certificates, Context, translate};
use amphora_model::{
    CertificateId, ListenerId, LoadBalancer,
    arbitrary::{CERTIFICATES, crt_list},
};

use self::{
    agent::Agent,
    balanced::Trial,
    client::{Outcome, Wallet},
    compare::Names,
    generate::{Case, Visit},
    render::Renderer,
    side::Side,
};
use crate::number_from;

/// How many seeds are tried, unless it is said for how long.
const CASES: u64 = 80;
/// Seeds that are tried besides: each has shown a difference that was mended since, or that the documentation lists.
const KNOWN: [u64; 14] = [98, 157, 293, 311, 361, 386, 393, 448, 482, 1185, 50332, 51180, 51239, 100238];

/// How many of those with a trial are tried besides, four kinds in turn; of as many as are done in a time each eighth is one.
const BALANCED: u64 = 8;

/// How many cases run at once.
const LABS: usize = 3;
/// How many differences are told.
const TOLD: usize = 12;

/// How long a case is made smaller, and of how many this is done: others are told as they are.
const SHRINKING: Duration = Duration::from_secs(40);
const SHRUNK: usize = 3;

/// What the controller sends besides the text.
struct Uploaded<'a>(&'a LoadBalancer);

impl Certificates for Uploaded<'_> {
    fn has(&self, id: &CertificateId) -> bool {
        CERTIFICATES.contains(&id.as_str())
    }

    fn crt_list(&self, listener: ListenerId) -> Option<Cow<'_, [u8]>> {
        crt_list(self.0, listener).map(|list| Cow::Owned(list.into_bytes()))
    }
}

/// What became of a case.
enum Verdict {
    /// So many requests, no difference.
    Same(usize),
    /// One of the two does not run it, which is told by the other test.
    Refused(String),
    Different(String),
}

/// Two namespaces, in which one case runs after the other.
struct Lab {
    theirs: Side,
    ours: Side,
    /// Another proxy in the namespace of `ours`, which runs what Octavia's driver would upload.
    agent: Option<Agent>,
}

impl Lab {
    async fn new(wallet: &Arc<Wallet>) -> Option<Self> {
        let (theirs, ours) = (Side::new(wallet).await?, Side::new(wallet).await?);
        let agent = Agent::start(ours.name(), &ours.path("log"), wallet).await;
        Some(Self { theirs, ours, agent })
    }

    /// The agent, when it is to be told: of every other case, or of all with `AMPHORA_WHOLE_BY_API=1`.
    fn agent_of(&self, case: &Case) -> Option<&Agent> {
        let is_told = case.seed.is_multiple_of(2) || number_from("AMPHORA_WHOLE_BY_API").is_some();
        self.agent.as_ref().filter(|_| is_told)
    }

    async fn run(&self, case: &Arc<Case>, renderer: &Renderer) -> Verdict {
        let verdict = self.compare(case, renderer).await;
        if let Some(agent) = self.agent_of(case) {
            agent.delete(&case.lb).await;
        }
        verdict
    }

    /// A smaller case with a difference of the same kind, as small as it becomes in [`SHRINKING`], and what it shows.
    async fn shrink(&self, case: Arc<Case>, what: String, renderer: &Renderer) -> String {
        let kind = |what: &str| what.split([' ', ':']).next().unwrap_or_default().to_owned();
        let deadline = Instant::now() + SHRINKING;
        let (mut smallest, mut shown, mut tried) = (case, what, 0);
        'smaller: loop {
            for smaller in shrink::smaller(&smallest) {
                if Instant::now() > deadline {
                    break 'smaller;
                }
                tried += 1;
                let smaller = Arc::new(smaller);
                if let Verdict::Different(what) = self.run(&smaller, renderer).await
                    && kind(&what) == kind(&shown)
                {
                    (smallest, shown) = (smaller, what);
                    continue 'smaller;
                }
            }
            break;
        }
        format!("the smallest of {tried} cases: {shown}")
    }

    async fn compare(&self, case: &Arc<Case>, renderer: &Renderer) -> Verdict {
        let text = match renderer.render(&case.document()) {
            Ok(text) => text,
            Err(error) => return Verdict::Refused(format!("Octavia: {error}")),
        };
        let uploaded = Uploaded(&case.lb);
        let vips: Vec<_> = case.lb.vips.iter().map(|vip| vip.address).collect();
        let translated =
            match translate(text.sent.as_bytes(), &Context { certificates: &uploaded, vips: &vips }) {
                Ok(translated) => translated,
                Err(fault) => {
                    return Verdict::Different(format!("the text is refused: {fault}\n{}", text.sent));
                }
            };
        let document = translated.load_balancer.to_json();
        let (their_doors, our_doors) = (self.theirs.open_doors(case).await, self.ours.open_doors(case).await);
        let haproxy = self.theirs.haproxy(&case.lb, &text.raw);
        let proxy = match self.agent_of(case) {
            Some(agent) => {
                self.ours.is_asked_at(agent.control());
                agent.update(&case.lb, &text.sent).await.map(|()| None)
            }
            None => self.ours.proxy(&document).map(Some),
        };
        let (_haproxy, _proxy) = match (haproxy, proxy) {
            (Ok(haproxy), Ok(proxy)) => (haproxy, proxy),
            (Err(theirs), Err(ours)) => return Verdict::Refused(format!("HAProxy: {theirs}\nhere: {ours}")),
            (Err(theirs), Ok(_)) => {
                return Verdict::Different(format!("HAProxy alone refuses it: {theirs}\n{}", text.raw));
            }
            (Ok(_), Err(ours)) => {
                return Verdict::Different(format!("refused here alone: {ours}\n{document:#}"));
            }
        };
        self.theirs.settle(case);
        self.ours.settle(case);
        self.theirs.forget();
        self.ours.forget();
        let (theirs, ours) = tokio::join!(self.theirs.visit(case), self.ours.visit(case));
        let trials = tokio::join!(self.theirs.trial(case, their_doors), self.ours.trial(case, our_doors));
        let difference = self.difference(case, &theirs, &ours).or_else(|| {
            let is_same = trials.0 == trials.1 && trial::shows(case.trial, &trials.0);
            (!is_same).then(|| format!("trial:\n{}", side_by_side(&trials.0, &trials.1)))
        });
        match difference {
            None => Verdict::Same(theirs.iter().map(|outcome| outcome.exchanges.len()).sum()),
            Some(different) => Verdict::Different(format!(
                "{different}\nmembers of HAProxy's:\n{}members here:\n{}\n{}",
                self.theirs.states(),
                self.ours.states(),
                text.sent
            )),
        }
    }

    fn difference(&self, case: &Case, theirs: &[Outcome], ours: &[Outcome]) -> Option<String> {
        let (mut their_names, mut our_names) = (Names::new(&case.lb), Names::new(&case.lb));
        for (number, visit) in case.visits.iter().enumerate() {
            let (theirs, ours) =
                (their_names.outcome(visit, &theirs[number]), our_names.outcome(visit, &ours[number]));
            if theirs != ours {
                let requests: String =
                    visit.requests.iter().map(|request| generate::latin1(request)).collect();
                let Visit { from, to, tls, in_streams, listener, .. } = visit;
                let id = case.lb.listeners[*listener].id;
                let lines = side_by_side(&theirs, &ours);
                return Some(format!(
                    "visit {number}: {from} to {to} {id} {tls:?} streams {in_streams}\n{requests}\n{lines}"
                ));
            }
        }
        if let Some(Trial::Shares(cycles)) = case.trial {
            let shares = |outcomes| balanced::shares(case, outcomes, cycles);
            let (theirs, ours) = (shares(theirs), shares(ours));
            if theirs != ours {
                return Some(format!("shares:\n{}", side_by_side(&theirs, &ours)));
            }
        }
        if !case.is_logged {
            return None;
        }
        let (theirs, ours) = (
            self.theirs.lines(case, expected_lines(case, theirs)),
            self.ours.lines(case, expected_lines(case, ours)),
        );
        let (theirs, ours) = (their_names.lines(&theirs), our_names.lines(&ours));
        (theirs != ours).then(|| format!("logs:\n{}", side_by_side(&theirs, &ours)))
    }
}

/// How many lines of log tell of these: one of each request, or of a connection where it is none of HTTP.
fn expected_lines(case: &Case, outcomes: &[Outcome]) -> usize {
    let lines = case.visits.iter().zip(outcomes).map(|(visit, outcome)| {
        let is_http = generate::speaks_http(&case.lb, &case.lb.listeners[visit.listener]);
        if is_http { outcome.exchanges.len().max(1) } else { 1 }
    });
    lines.sum()
}

/// The lines of both, those that differ marked.
fn side_by_side(theirs: &str, ours: &str) -> String {
    let (theirs, ours): (Vec<_>, Vec<_>) = (theirs.lines().collect(), ours.lines().collect());
    let same = theirs.iter().zip(&ours).take_while(|(theirs, ours)| theirs == ours).count();
    let rest =
        |lines: &[&str]| lines[same..].iter().take(40).map(|line| format!("{line}\n")).collect::<String>();
    format!("{}\n=== HAProxy\n{}=== here\n{}", theirs[..same].join("\n"), rest(&theirs), rest(&ours))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_text_of_octavias_does_what_it_does_in_haproxy() {
    let Some(renderer) = Renderer::start() else { return };
    let renderer = Arc::new(renderer);
    let wallet = Arc::new(Wallet::new());
    let until =
        number_from("AMPHORA_WHOLE_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let only = number_from("AMPHORA_WHOLE_ONLY");
    let first = only.or(number_from("AMPHORA_WHOLE_SEED")).unwrap_or(1);
    let next = Arc::new(AtomicU64::new(first));
    let (cases, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (refused, different) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let mut labs = Vec::new();
    for _ in 0..if only.is_some() { 1 } else { LABS } {
        let Some(lab) = Lab::new(&wallet).await else { return };
        let (renderer, next, cases, requests) =
            (Arc::clone(&renderer), Arc::clone(&next), Arc::clone(&cases), Arc::clone(&requests));
        let (refused, different) = (Arc::clone(&refused), Arc::clone(&different));
        labs.push(tokio::spawn(async move {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let seed = match until {
                    Some(until) if Instant::now() > until => break,
                    Some(_) => seed,
                    None if seed < first + CASES => seed,
                    None => match (seed - first - CASES).checked_sub(KNOWN.len() as u64) {
                        None => KNOWN[(seed - first - CASES) as usize],
                        Some(number) if number < BALANCED => balanced::FIRST + number,
                        Some(_) => break,
                    },
                };
                let seed = match until {
                    Some(_) if seed.is_multiple_of(8) => balanced::FIRST + seed / 8,
                    _ => seed,
                };
                let case = if seed < balanced::FIRST { Case::new(seed) } else { Case::balanced(seed) };
                let case = Arc::new(case);
                let verdict = lab.run(&case, &renderer).await;
                cases.fetch_add(1, Ordering::Relaxed);
                match verdict {
                    Verdict::Same(asked) => drop(requests.fetch_add(asked as u64, Ordering::Relaxed)),
                    Verdict::Refused(reason) => {
                        refused.lock().unwrap().push(format!("{}: {reason}", case.seed))
                    }
                    Verdict::Different(what) => {
                        let is_told_whole = different.lock().unwrap().len() >= SHRUNK;
                        let what = match is_told_whole {
                            true => what,
                            false => lab.shrink(Arc::clone(&case), what, &renderer).await,
                        };
                        different.lock().unwrap().push(format!("seed {}: {what}", case.seed))
                    }
                }
                let told = different.lock().unwrap().len();
                if only.is_some() || told >= TOLD {
                    break;
                }
            }
        }));
    }
    for lab in labs {
        lab.await.unwrap();
    }
    let (refused, different) = (refused.lock().unwrap(), different.lock().unwrap());
    println!(
        "{} load balancers, {} requests; {} are refused by both; {} differ",
        cases.load(Ordering::Relaxed),
        requests.load(Ordering::Relaxed),
        refused.len(),
        different.len()
    );
    refused.iter().for_each(|reason| println!("{reason}"));
    assert!(different.is_empty(), "replay with AMPHORA_WHOLE_ONLY=seed\n\n{}", different.join("\n\n"));
}
