#![allow(clippy::unwrap_used)]
use std::{path::PathBuf, rc::Rc};

use tempfile::TempDir;
use tokio::{task::LocalSet, time::timeout};

use super::*;

struct Bench {
    outlet: Rc<Outlet>,
    counters: Arc<PerWorker<Counters>>,
    path: PathBuf,
    _directory: TempDir,
}

/// An outlet at work, and no syslog yet.
async fn with_outlet<F: Future<Output = ()>>(test: impl FnOnce(Bench) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let counters = Arc::new(PerWorker::new(1));
    let socket = sockets(&path, 1).unwrap().remove(0);
    let outlet = Rc::new(Outlet::new(socket, Arc::clone(&counters), 0).unwrap());
    let running = Rc::clone(&outlet);
    LocalSet::new()
        .run_until(async move {
            tokio::task::spawn_local(async move { running.run().await });
            test(Bench { outlet, counters, path, _directory: directory }).await;
        })
        .await;
}

impl Bench {
    fn syslog(&self) -> UnixDatagram {
        UnixDatagram::bind(&self.path).unwrap()
    }

    fn lines(&self, lines: std::ops::Range<usize>) {
        lines.for_each(|number| self.outlet.line(|out| out.extend(format!("<134>line {number}").bytes())));
    }

    /// Lines sent, and dropped.
    fn counted(&self) -> (u64, u64) {
        (self.counters.of(0).sent.get(), self.counters.of(0).dropped.get())
    }
}

async fn received(syslog: &UnixDatagram, expected: std::ops::Range<usize>) {
    for number in expected {
        let mut line = [0; 2048];
        let n = timeout(Duration::from_secs(20), syslog.recv(&mut line)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&line[..n]), format!("<134>line {number}\n"));
    }
}

#[tokio::test]
async fn lines_arrive_in_order_each_as_a_datagram() {
    with_outlet(async |bench| {
        let syslog = bench.syslog();
        bench.lines(0..1);
        received(&syslog, 0..1).await;
        // A syslog takes ten at once unless told otherwise (net.unix.max_dgram_qlen): the rest waits for it.
        bench.lines(1..500);
        received(&syslog, 1..500).await;
        assert_eq!(bench.counted(), (500, 0));
    })
    .await;
}

#[tokio::test]
async fn a_syslog_that_restarts_gets_what_came_meanwhile() {
    with_outlet(async |bench| {
        let syslog = bench.syslog();
        bench.lines(0..3);
        received(&syslog, 0..3).await;
        drop(syslog);
        std::fs::remove_file(&bench.path).unwrap();
        bench.lines(3..100);
        tokio::time::sleep(LINGER * 4).await;
        let syslog = bench.syslog();
        received(&syslog, 3..100).await;
        assert_eq!(bench.counted(), (100, 0));
    })
    .await;
}

#[tokio::test]
async fn a_syslog_that_takes_nothing_costs_lines_and_no_more() {
    with_outlet(async |bench| {
        let syslog = bench.syslog();
        let most = 40_000;
        bench.lines(0..most);
        while bench.counted().0 == 0 {
            tokio::time::sleep(LINGER).await;
        }
        let (sent, dropped) = bench.counted();
        assert!(sent < 1000 && dropped > 1000, "{sent} {dropped}");
        // What waits is what came first.
        let kept = most - dropped as usize;
        received(&syslog, 0..kept).await;
        assert_eq!(bench.counted(), (kept as u64, dropped));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_syslog_lines_are_dropped_after_a_while_and_taken_once_there_is_one() {
    with_outlet(async |bench| {
        bench.lines(0..5);
        tokio::time::sleep(PATIENCE + RETRY * 2).await;
        assert_eq!(bench.counted(), (0, 5));
        // Not even written.
        bench.outlet.line(|_| panic!("for nobody"));
        assert_eq!(bench.counted(), (0, 6));
        tokio::time::sleep(RETRY * 2).await;
        let syslog = bench.syslog();
        // It is looked for when there is a line for it.
        tokio::time::sleep(RETRY * 2).await;
        bench.outlet.line(|_| panic!("for nobody"));
        tokio::time::sleep(RETRY * 2).await;
        bench.lines(0..2);
        received(&syslog, 0..2).await;
        assert_eq!(bench.counted(), (2, 7));
    })
    .await;
}

#[tokio::test]
async fn what_waits_at_the_end_is_sent_or_counted() {
    with_outlet(async |bench| {
        let syslog = bench.syslog();
        bench.lines(0..4);
        bench.outlet.finish();
        received(&syslog, 0..4).await;
        drop(syslog);
        bench.lines(4..6);
        bench.outlet.finish();
        assert_eq!(bench.counted(), (4, 2));
    })
    .await;
}

#[tokio::test]
async fn a_syslog_that_is_replaced_while_it_takes_nothing_leaves_the_rest_to_the_next() {
    with_outlet(async |bench| {
        let frozen = bench.syslog();
        bench.lines(0..300);
        while bench.counted().0 == 0 || !bench.outlet.full.get() {
            tokio::time::sleep(LINGER).await;
        }
        std::fs::remove_file(&bench.path).unwrap();
        let next = bench.syslog();
        // What it had is lost with it, as with any program that dies.
        let (sent, dropped) = bench.counted();
        drop(frozen);
        received(&next, sent as usize..300).await;
        assert_eq!((bench.counted(), dropped), ((300, 0), 0));
    })
    .await;
}
