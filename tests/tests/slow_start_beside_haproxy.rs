//! A real HAProxy lets servers come back, and says each moment what their weights are and for how long they have been there: our
//! core, told the same time, must say the same.
#![allow(clippy::unwrap_used)]

use std::{
    fmt::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use amphora_proxy::state::{FULL, share};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{sleep, timeout},
};

/// How each of our algorithms is spelled there. Its `balance source` hashes by a table whose weights never change; what ours does is
/// its consistent hash.
const ALGORITHMS: [&str; 3] =
    ["balance roundrobin", "balance leastconn", "balance source\n hash-type consistent"];

/// Of one length that its steps go up in, and one that they do not.
const SLOW_STARTS: [u64; 2] = [8, 5];

struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl HaProxy {
    /// A server of weight 16 in each backend, beside one that is there; HAProxy says weights in whole numbers, so that each is a share.
    fn start(dir: &Path) -> Option<Self> {
        let mut config = format!(
            "global\n stats socket {} level admin\ndefaults\n mode tcp\n timeout connect 20s\n timeout server 20s\n timeout client 20s\n",
            dir.join("sock").display()
        );
        for (i, (algorithm, slow_start)) in cases().enumerate() {
            let _ = write!(
                config,
                "backend b{i}\n {algorithm}\n server other 127.0.0.1:9 weight 16\n \
                 server s 127.0.0.1:9 weight 16 slowstart {slow_start}s disabled\n"
            );
        }
        // A proxy must listen somewhere.
        let _ = writeln!(config, "frontend f\n bind unix@{}\n default_backend b0", dir.join("f").display());
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let quiet = || Stdio::null();
        let child =
            Command::new("haproxy").arg("-db").arg("-f").arg(file).stdout(quiet()).stderr(quiet()).spawn();
        child.ok().map(Self)
    }
}

fn cases() -> impl Iterator<Item = (&'static str, u64)> {
    ALGORITHMS.into_iter().flat_map(|algorithm| SLOW_STARTS.map(|seconds| (algorithm, seconds)))
}

async fn ask(dir: &Path, command: &str) -> Option<String> {
    let mut socket = UnixStream::connect(dir.join("sock")).await.ok()?;
    socket.write_all(format!("{command}\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await.ok()?;
    Some(text)
}

/// For how many seconds each server has been there, and its weight.
async fn weights(dir: &Path) -> Vec<(u64, u16)> {
    let text = ask(dir, "show stat -1 4 -1").await.unwrap();
    let server = |line: &str| {
        let columns: Vec<_> = line.split(',').collect();
        (columns.get(1) == Some(&"s")).then(|| (columns[23].parse().unwrap(), columns[18].parse().unwrap()))
    };
    text.lines().filter_map(server).collect()
}

#[tokio::test]
async fn a_weight_grows_as_in_haproxy() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_haproxy) = HaProxy::start(dir.path()) else {
        eprintln!("SKIPPED: there is no haproxy to compare with");
        return;
    };
    let up = async {
        while ask(dir.path(), "show info").await.is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), up).await.expect("HAProxy starts");
    let enable: Vec<_> = (0..cases().count()).map(|i| format!("enable server b{i}/s")).collect();
    ask(dir.path(), &enable.join("; ")).await.unwrap();
    let mut seen = vec![Vec::new(); cases().count()];
    let watch = async {
        while seen.iter().any(|seen: &Vec<(u64, u16)>| seen.last().is_none_or(|(_, weight)| *weight < FULL)) {
            for (seen, weight) in seen.iter_mut().zip(weights(dir.path()).await) {
                seen.push(weight);
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), watch).await.expect("HAProxy's servers start");
    for ((algorithm, slow_start), mut seen) in cases().zip(seen) {
        let ours = |seconds| share(Duration::from_secs(seconds), Duration::from_secs(slow_start));
        // Where it has all of it another state begins, and the seconds anew.
        let (mut last, rising) = (0, seen.iter().take_while(|(_, weight)| *weight < FULL));
        for (seconds, weight) in rising {
            last = *seconds;
            // It looks at the clock once a second, so that a second may be over that it has not seen.
            let ours = ours(seconds.saturating_sub(1))..=ours(*seconds);
            assert!(
                ours.contains(weight),
                "{algorithm} {slow_start}: {weight} after {seconds}, not {ours:?}"
            );
        }
        assert!((slow_start - 1..=slow_start).contains(&last), "{algorithm} {slow_start}: all after {last}");
        seen.dedup_by_key(|(_, weight)| *weight);
        let theirs: Vec<_> = seen.iter().map(|(_, weight)| *weight).collect();
        let ours: Vec<_> = (0..=slow_start).map(ours).collect();
        println!("{algorithm} {slow_start}: {theirs:?} of {ours:?}");
        assert!(theirs.iter().all(|weight| ours.contains(weight)), "{algorithm}: {theirs:?} {ours:?}");
        assert_eq!((theirs[0], theirs.last()), (1, Some(&FULL)), "{algorithm}");
        assert!(theirs.len() + 1 >= ours.len(), "{algorithm}: at most one step is passed over: {theirs:?}");
    }
}
