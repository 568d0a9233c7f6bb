//! Whether the data plane is fit is said at once, whatever else is going on, and is about the workers.

use std::{cell::Cell, fs, sync::mpsc, thread, time::Duration};

use amphora_tests::{
    Backend, Client, Document, L7Policy, L7Rule, Listener, Pool, Proxy, eventually, in_time,
};
use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use tokio::time::sleep;

use crate::quiesce::Fitness;

/// As often as the VRRP daemon asks.
const INTERVAL: Duration = Duration::from_millis(25);

/// A thread of another process that does not run, as one that waits for a lock that it holds itself.
struct Stopped {
    go_on: mpsc::Sender<()>,
    tracer: thread::JoinHandle<()>,
}

impl Stopped {
    fn of(process: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let task = tasks
            .flatten()
            .find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
        let name = task.unwrap_or_else(|| panic!("no thread {name}")).file_name();
        let thread = Pid::from_raw(name.to_str().unwrap().parse().unwrap());
        let ((go_on, goes_on), (stopped, has_stopped)) = (mpsc::channel(), mpsc::channel());
        // Only the thread that traces it may let it go on.
        let tracer = thread::spawn(move || {
            ptrace::seize(thread, ptrace::Options::empty()).unwrap();
            ptrace::interrupt(thread).unwrap();
            waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
            stopped.send(()).unwrap();
            let _ = goes_on.recv();
            ptrace::detach(thread, None).unwrap();
        });
        has_stopped.recv().unwrap();
        Self { go_on, tracer }
    }

    fn go_on(self) {
        drop(self.go_on);
        self.tracer.join().unwrap();
    }
}

/// Asks until the answer is this one.
async fn until(fitness: &mut Fitness, wanted: u8) {
    let what = format!("the answer {}", char::from(wanted));
    eventually(&what, async || {
        sleep(INTERVAL).await;
        (fitness.ask(b'?').await == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_hangs_makes_it_unfit_until_it_goes_on() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut fitness = Fitness::of(&proxy).await;
    for worker in ["worker-0", "worker-1"] {
        until(&mut fitness, b'+').await;
        let stopped = Stopped::of(proxy.pid(), worker);
        until(&mut fitness, b'-').await;
        // It is about the workers and not about who answers, who says so at once.
        for _ in 0..10 {
            assert_eq!(fitness.ask(b'?').await, b'-');
        }
        stopped.go_on();
    }
    until(&mut fitness, b'+').await;
    let log = async || proxy.log().contains("the data plane was not fit").then_some(());
    eventually("the log says it", log).await;
}

#[tokio::test]
async fn idle_workers_are_fit_and_so_are_busy_ones() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut fitness = Fitness::of(&proxy).await;
    for _ in 0..20 {
        assert_eq!(fitness.ask(b'?').await, b'+');
        sleep(INTERVAL).await;
    }
    let address = proxy.address();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                loop {
                    client.get("/").await;
                }
            })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(fitness.ask(b'?').await, b'+');
        sleep(INTERVAL).await;
    }
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_change_that_takes_long_keeps_no_answer_waiting() {
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    let mut fitness = Fitness::of(&proxy).await;
    let pool = Pool::http().members([&member]);
    let rule = |n: usize| L7Rule::new("PATH", "REGEX", &format!("^/[a-z]{{1,40}}/{n}/[^/]+[.](php|asp)$"));
    let policies = (0..1000).map(|n| L7Policy::new("REJECT", rule(n)));
    let listener = policies.fold(Listener::http().to(&pool), Listener::policy);
    let document = Document::of(listener, pool);

    let is_done = Cell::new(false);
    let change = async {
        in_time("the change", proxy.apply(&document)).await;
        is_done.set(true);
    };
    let answers = async {
        let mut answers = 0;
        while !is_done.get() {
            assert_eq!(fitness.ask(b'?').await, b'+');
            answers += 1;
        }
        answers
    };
    let ((), answers) = tokio::join!(change, answers);
    // One before it begins and one after it has ended come in any case.
    assert!(answers > 5, "{answers} answers while it was made");
}
