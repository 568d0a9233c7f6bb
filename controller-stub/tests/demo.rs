//! The demo with the real programs: that all it shows is true, and that it leaves nothing behind however it ends.
//!
//! The programs of the other crates are found beside this one, where `cargo build --workspace` puts them.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The longest that a demo may take here.
const LIMIT: Duration = Duration::from_secs(180);

/// A demo that keeps its files in a directory of the test's.
struct Demo {
    child: Child,
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A demo at a time: each measures what its clients lose, and they would take the cores from one another.
static TURN: Mutex<()> = Mutex::new(());

impl Demo {
    /// `None` where the programs of an amphora are not built.
    fn start(args: &[&str]) -> Option<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_amphora-controller"));
        for name in ["amphora-agent", "amphora-proxy", "amphora-vrrp"] {
            let beside = program.with_file_name(name);
            if !beside.exists() {
                eprintln!("SKIPPED: {} is not built; `cargo build --workspace` makes it", beside.display());
                return None;
            }
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let child = Self::spawn(dir.path(), args);
        Some(Self { child, dir, _turn: turn })
    }

    fn spawn(dir: &Path, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_amphora-controller"))
            .args(["demo", "--plain", "--rate", "300"])
            .args(args)
            .env("TMPDIR", dir)
            .env_remove("AMPHORA_AGENT_BIN")
            .env_remove("AMPHORA_PROXY_BIN")
            .env_remove("AMPHORA_VRRP_BIN")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// What it keeps its files in.
    fn only_directory(&self) -> PathBuf {
        let all: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }

    /// Reads its lines until one contains `text`; to the end when `text` is empty.
    fn read_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let mut lines = BufReader::new(self.child.stdout.as_mut().unwrap());
        // A buffered reader may take more than the line; nobody reads what comes after it.
        while lines.read_line(&mut seen).unwrap() > 0 {
            if !text.is_empty() && seen.lines().last().is_some_and(|line| line.contains(text)) {
                break;
            }
        }
        seen
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < LIMIT, "the demo does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// No process, no file, no namespace.
    fn assert_nothing_is_left(&self) {
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 0, "files are left");
        let left = self.namespaces();
        assert!(left.is_empty(), "namespaces are left: {left:?}");
        self.assert_no_process_is_left();
    }

    fn namespaces(&self) -> Vec<String> {
        Self::namespaces_of(self.pid())
    }

    fn namespaces_of(pid: u32) -> Vec<String> {
        let own = format!("amphora-demo-{pid}-");
        let all = fs::read_dir("/run/netns").into_iter().flatten();
        all.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(&own))
            .collect()
    }

    /// They may take a moment to end.
    fn assert_no_process_is_left(&self) {
        let dir = self.dir.path().to_str().unwrap();
        let begin = Instant::now();
        while let Some(process) = processes_that_name(dir).first() {
            assert!(begin.elapsed() < Duration::from_secs(5), "{process:?} is left");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes with `text` in their command line or their environment, other than this one.
fn processes_that_name(text: &str) -> Vec<PathBuf> {
    let names = |path: PathBuf| fs::read(path).is_ok_and(|b| String::from_utf8_lossy(&b).contains(text));
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().parse::<u32>().is_ok_and(|p| p != std::process::id()))
        })
        .filter(|path| names(path.join("cmdline")) || names(path.join("environ")))
        .collect()
}

#[test]
fn all_that_it_shows_is_true() {
    let Some(mut demo) = Demo::start(&["--once", "--changes", "20"]) else { return };
    let story = demo.read_until("");
    assert_eq!(demo.wait(), Some(0), "{story}");
    assert!(story.contains("checks held") && story.contains(" 0 lost"), "{story}");
    for told in
        ["without SNI: the certificate of", "ALPN h2, http/1.1: h2", "TLS 1.2: after a full", "80 of 80"]
    {
        let line = story.lines().find(|line| line.contains(told));
        assert!(line.is_some_and(|line| line.contains(" ok ")), "{told}: {story}");
    }
    if let Some(reason) = no_pair(&story) {
        eprintln!("SKIPPED: the pair: {reason}");
    } else {
        for event in ["planned hand-over", "proxy killed", "VRRP daemon killed", "host killed", "host back"] {
            let told = story.lines().filter(|line| line.contains(event) && line.contains("outage")).count();
            let (pair, serve) = (story.split("start serve").next().unwrap(), event == "host killed");
            assert!(told == 2 + usize::from(serve) && pair.contains(event), "{event}: {story}");
        }
        for told in [
            "its API answers",
            "members changed",
            "two others, ACTIVE",
            "another is in its place",
            "left: 0 amphorae",
        ] {
            let line = story.lines().find(|line| line.contains(told));
            assert!(line.is_some_and(|line| line.contains(" ok ")), "{told}: {story}");
        }
    }
    demo.assert_nothing_is_left();
}

/// Why the demo shows no pair, if it says so.
fn no_pair(story: &str) -> Option<&str> {
    story.lines().find_map(|line| line.split_once("no pair: ")).map(|(_, reason)| reason)
}

/// A demo that has come to a line of the pair's part; `None`, and a line that says so, where it has none.
fn demo_at(line: &str) -> Option<Demo> {
    let mut demo = Demo::start(&["--once", "--changes", "1"])?;
    let begun = demo.read_until("agent and proxy run");
    if let Some(reason) = no_pair(&begun) {
        eprintln!("SKIPPED: the pair: {reason}");
        kill(Pid::from_raw(demo.pid().try_into().unwrap()), Signal::SIGTERM).unwrap();
        demo.wait();
        return None;
    }
    let story = demo.read_until(line);
    assert!(story.contains(line), "{story}");
    Some(demo)
}

#[test]
fn ctrl_c_leaves_nothing_of_the_pair_behind() {
    for line in ["kill the proxy", "answers no more", "PUT failover"] {
        let Some(mut demo) = demo_at(line) else { return };
        kill(Pid::from_raw(demo.pid().try_into().unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(demo.wait(), Some(128 + Signal::SIGINT as i32));
        demo.assert_nothing_is_left();
    }
}

#[test]
fn of_a_killed_demo_the_pair_ends_and_the_next_one_removes_its_namespaces() {
    let Some(mut demo) = demo_at("a planned hand-over") else { return };
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    demo.assert_no_process_is_left();
    assert!(!demo.namespaces().is_empty());
    let own = demo.pid();
    demo.child = Demo::spawn(demo.dir.path(), &["--once"]);
    demo.read_until("amphora-agent");
    assert!(Demo::namespaces_of(own).is_empty(), "namespaces of {own} are left");
    kill(Pid::from_raw(demo.pid().try_into().unwrap()), Signal::SIGTERM).unwrap();
    demo.wait();
    demo.assert_nothing_is_left();
}

#[test]
fn of_a_killed_demo_serve_ends_and_all_that_it_has_made() {
    let Some(mut demo) = demo_at("members changed") else { return };
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    demo.assert_no_process_is_left();
    demo.child = Demo::spawn(demo.dir.path(), &["--once"]);
    demo.read_until("amphora-agent");
    kill(Pid::from_raw(demo.pid().try_into().unwrap()), Signal::SIGTERM).unwrap();
    demo.wait();
    demo.assert_nothing_is_left();
}

#[test]
fn on_loopback_too() {
    let Some(mut demo) = Demo::start(&["--once", "--changes", "5", "--loopback"]) else { return };
    let story = demo.read_until("");
    assert_eq!(demo.wait(), Some(0), "{story}");
    assert!(story.contains("no network namespaces: --loopback"), "{story}");
    assert!(no_pair(&story).is_some() && !story.contains("amphora-2"), "{story}");
    demo.assert_nothing_is_left();
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    for (signal, until) in [(Signal::SIGINT, "who answers what"), (Signal::SIGTERM, "start an amphora")] {
        let Some(mut demo) = Demo::start(&["--once"]) else { return };
        demo.read_until(until);
        kill(Pid::from_raw(demo.pid().try_into().unwrap()), signal).unwrap();
        assert_eq!(demo.wait(), Some(128 + signal as i32));
        demo.assert_nothing_is_left();
    }
}

#[test]
fn a_closed_pipe_ends_it_in_order() {
    let Some(mut demo) = Demo::start(&["--loopback"]) else { return };
    demo.read_until("start an amphora");
    drop(demo.child.stdout.take());
    assert_eq!(demo.wait(), Some(141));
    demo.assert_nothing_is_left();
}

#[test]
fn even_killed_it_leaves_no_process_and_the_next_one_removes_its_files() {
    let Some(mut demo) = Demo::start(&["--once", "--loopback"]) else { return };
    demo.read_until("who answers what");
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    demo.assert_no_process_is_left();
    let left = demo.only_directory();
    demo.child = Demo::spawn(demo.dir.path(), &["--once", "--loopback"]);
    demo.read_until("start an amphora");
    demo.read_until("amphora-agent");
    assert!(!left.exists(), "{}", left.display());
    kill(Pid::from_raw(demo.pid().try_into().unwrap()), Signal::SIGTERM).unwrap();
    demo.wait();
    demo.assert_nothing_is_left();
}
