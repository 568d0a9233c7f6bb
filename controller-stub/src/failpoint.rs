//! Where a test lets this program end at once, as a power cut would: before and after each commit, and before and after each thing that is
//! done outside. There are none where debug assertions are off, as in every release.

/// `AMPHORA_FAILPOINT=NAME:COUNT` ends the program the COUNTth time that it gets here; with `AMPHORA_FAILPOINT=list` the log says which points it
/// has passed.
#[cfg(debug_assertions)]
pub(crate) fn reach(name: &'static str) {
    use std::{
        env,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| env::var("AMPHORA_FAILPOINT").ok());
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let Some(chosen) = &*CHOSEN else { return };
    if chosen == "list" {
        tracing::info!(failpoint = name, "passed");
        return;
    }
    let Some((wanted, count)) = chosen.rsplit_once(':') else { return };
    if wanted == name && Some(PASSED.fetch_add(1, Ordering::Relaxed) + 1) == count.parse().ok() {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) const fn reach(_: &'static str) {}
