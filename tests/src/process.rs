//! The program under test: where it is, and what it holds.

use std::{
    fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, sync::OnceLock, time::Duration,
};

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    time::ClockId,
    unistd::Pid,
};
use tempfile::TempDir;

/// The proxy's program: `AMPHORA_PROXY_BIN`, or the one beside this test's, which is brought up to date first.
pub(crate) fn proxy_program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = std::env::var_os("AMPHORA_PROXY_BIN") {
            return program.into();
        }
        // target/PROFILE/deps/test-HASH
        let own = std::env::current_exe().unwrap();
        let directory = own.parent().unwrap().parent().unwrap();
        let profile = directory.file_name().unwrap().to_str().unwrap();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", "amphora-proxy", "--bin", "amphora-proxy"])
            .args(["--profile", if profile == "debug" { "dev" } else { profile }, "--target-dir"])
            .arg(directory.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success(), "the proxy cannot be built");
        directory.join("amphora-proxy")
    })
}

/// A temporary directory that other users may look into, as the proxy's is.
pub fn shared_directory() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// The memory that a process holds, in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process that lives");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The CPU time that a process has used, in all its threads.
pub fn cpu_time(pid: u32) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    clock.now().unwrap().into()
}

/// Lets this process open as many files as it may, and says how many: tests with many connections need them.
pub fn open_files() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        hard
    })
}
