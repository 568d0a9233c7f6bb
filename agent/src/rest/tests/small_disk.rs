//! A disk that is full soon.

use std::path::PathBuf;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::testing::TestAgent;

/// An agent whose files are on a file system of their own, of 1 MiB; `None`, told loudly, where it may not be mounted. What is mounted
/// is of the thread of this test alone, and of those that it starts.
pub(super) async fn on_a_small_disk() -> Option<(TestAgent, PathBuf)> {
    let alone = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
    });
    let mut disk = None;
    let agent = TestAgent::with(|config| {
        let base = config.base_path.clone();
        std::fs::create_dir_all(&base).unwrap();
        let mounted = mount(Some("tmpfs"), &base, Some("tmpfs"), MsFlags::empty(), Some("size=1m"));
        disk = alone.and(mounted).is_ok().then_some(base);
    });
    let agent = agent.await;
    if disk.is_none() {
        eprintln!("SKIPPED: nothing can be mounted here");
    }
    Some((agent, disk?))
}
