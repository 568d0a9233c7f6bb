//! Network namespaces through the `ip` command, removed with the value.

use std::{
    fs::File,
    future::Future,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::geteuid,
};
use tokio::sync::oneshot;

/// A network namespace of the test's own. Dropping it removes it, and every interface in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one with its loopback interface up. `None`, and a line that says so, where that is not permitted.
    pub fn create() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces take root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("amphora-test-{}-{number}", std::process::id());
        if let Err(error) = run(&["netns", "add", &name]) {
            eprintln!("SKIPPED: no network namespaces here: {error}");
            return None;
        }
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside.
    pub fn ip(&self, args: &[&str]) {
        run(&[&["-n", &self.name], args].concat()).unwrap();
    }

    /// Runs a program inside.
    pub fn exec(&self, command: &[&str]) {
        run(&[&["netns", "exec", &self.name], command].concat()).unwrap();
    }

    /// Connects it with another by a pair of interfaces, each called `link` at its end.
    pub fn link(&self, link: &str, other: &Self, other_link: &str) {
        self.ip(&["link", "add", link, "type", "veth", "peer", "name", other_link, "netns", &other.name]);
        self.ip(&["link", "set", link, "up"]);
        other.ip(&["link", "set", other_link, "up"]);
    }

    /// Runs `work` on a thread and a runtime of its own, inside, and returns its result.
    ///
    /// # Panics
    /// When `work` does.
    pub async fn run<T: Send + 'static, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        self.spawn(work).await.expect("the work inside the namespace succeeds")
    }

    /// Starts `work` on a thread and a runtime of its own, inside.
    pub fn spawn<T: Send + 'static, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> oneshot::Receiver<T> {
        spawn_in(&self.name, work)
    }
}

/// Runs `work` on a thread and a runtime of its own, in the namespace of this name.
///
/// # Panics
/// When `work` does, or there is no such namespace.
pub async fn in_namespace<T: Send + 'static, F: Future<Output = T>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> T {
    spawn_in(name, work).await.expect("the work inside the namespace succeeds")
}

fn spawn_in<T: Send + 'static, F: Future<Output = T>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> oneshot::Receiver<T> {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    let (done, result) = oneshot::channel();
    // Not a thread of the runtime's pool: it stays in the namespace.
    std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = done.send(runtime.block_on(work()));
    });
    result
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(&["netns", "delete", &self.name]) {
            eprintln!("{error}");
        }
    }
}

fn run(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}
