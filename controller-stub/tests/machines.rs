//! The driver `qemu` with QEMU itself: a machine without a system, since its disk is empty, so that it takes no time to boot. As root
//! only, in a network namespace of its own; `images/tests/vm/serve` has whole amphorae made.

#![allow(clippy::unwrap_used)]

mod qemu;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use amphora_controller::serve::{
    amphora::Driver,
    compute::{
        Compute, Interface, Liveness, Machine, Size,
        deaths::Deaths,
        qemu::{Accel, Qemu, Settings, qmp::Monitor},
    },
    config::{Config, Network},
    network::bridges,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::{Value, json};
use tokio::{runtime::Builder, sync::watch, time::timeout};

const INSTANCE: &str = "0123abcd";
const ID: &str = "3c63f388-da4f-44a3-982d-45d8e243d502";
const PORTS: [&str; 2] = ["9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33", "5a8e4d21-2b3c-4d5e-9f60-1a2b3c4d5e44"];
const PATIENCE: Duration = Duration::from_secs(60);

/// Does `work` in a network namespace of its own, in which the bridges of this configuration are; not at all where that cannot be.
fn with_bridges<F: Future<Output = ()>>(work: impl FnOnce(PathBuf, Config) -> F + Send) {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: machines on bridges take root");
    }
    if let Some(lacks) = qemu::lacks() {
        return eprintln!("SKIPPED: {lacks}");
    }
    let ran = thread::scope(|scope| {
        let ran = scope.spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("SKIPPED: no network namespaces here");
                return;
            }
            let dir = qemu::passage();
            let config = Config::parse("[networks]\nvips = 192.0.2.0/24\n").unwrap();
            let networks: Vec<&Network> =
                config.networks.iter().chain([&config.compute.management]).collect();
            bridges::make(&networks, &BTreeSet::new(), INSTANCE).unwrap().keep();
            // Its threads are of this one's namespace.
            Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(work(dir.path().to_owned(), config.clone()));
        });
        ran.join()
    });
    ran.unwrap();
}

/// As each `serve` opens it.
fn open(dir: &Path, config: &Config, image: &Path) -> (Qemu, Deaths) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let (_, tls) = watch::channel(Arc::new(tls));
    let deaths = Deaths::default();
    let settings = Settings {
        dir: dir.join("machines"),
        image: Some(image.to_owned()),
        programs: config.compute.qemu_cmds.clone(),
        accel: Some(Accel::Tcg),
        user: None,
        management: config.compute.management.clone(),
        heartbeats: ("10.251.0.1:5555".parse().unwrap(), "key".to_owned(), 3),
        boot_time: Duration::from_secs(300),
        lets_go: Duration::from_millis(500),
    };
    (Qemu::open(settings, INSTANCE, Driver::new(tls), deaths.clone()).unwrap(), deaths)
}

fn machine(driver: &Qemu) -> Machine {
    Machine {
        name: driver.name(ID),
        amphora: ID.to_owned(),
        agent: "10.251.0.2:9443".parse().unwrap(),
        paired: false,
        size: Size { memory: 256, cpus: 1 },
        authority: "CA".to_owned(),
        certificate: "KEY".to_owned(),
    }
}

fn interfaces(config: &Config) -> [Interface; 2] {
    let bridge = bridges::name(&config.networks[0].id);
    let mut number = 0;
    PORTS.map(|port| {
        number += 1;
        Interface { port: port.to_owned(), bridge: bridge.clone(), mac: format!("fa:00:00:00:00:0{number}") }
    })
}

/// Taps that are on a bridge.
fn taps() -> Vec<(String, String)> {
    let output = Command::new("ip").args(["-json", "link", "show", "type", "tun"]).output().unwrap();
    let listed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    listed
        .iter()
        .filter(|entry| entry["ifname"].is_string())
        .map(|entry| (text(entry, "ifname"), text(entry, "master")))
        .collect()
}

fn home(dir: &Path) -> PathBuf {
    dir.join("machines/3c63f388da4f44a3")
}

fn pid(dir: &Path) -> u32 {
    let lock = fs::read_to_string(home(dir).join("qemu.lock")).unwrap();
    lock.split(' ').next().unwrap().parse().unwrap()
}

/// The link-layer addresses of its cards, as QEMU has them.
async fn cards(dir: &Path) -> BTreeSet<String> {
    let mut monitor = Monitor::connect(&home(dir).join("run/qmp"), pid(dir), PATIENCE).await.unwrap();
    let listed = monitor.call("qom-list", json!({"path": "/machine/peripheral"})).await.unwrap();
    let mut found = BTreeSet::new();
    for entry in listed.as_array().unwrap() {
        let path = format!("/machine/peripheral/{}", entry["name"].as_str().unwrap());
        if let Ok(mac) = monitor.call("qom-get", json!({"path": path, "property": "mac"})).await {
            found.insert(mac.as_str().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn a_machine_outlives_who_made_it_and_leaves_nothing() {
    with_bridges(|dir, config| async move {
        let image = dir.join("image.qcow2");
        qemu::make_disk(&image);
        let (driver, _) = open(&dir, &config, &image);
        let machine = machine(&driver);
        let [first, second] = interfaces(&config);
        assert_eq!(
            driver.alive(&machine.name).await.unwrap(),
            Liveness::Absent,
            "before the first there is nothing of it"
        );
        driver.create(&machine).await.unwrap();
        driver.plug(&machine.name, &first).await.unwrap();
        let process = pid(&dir);
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        assert!(!line("Uid:").split_ascii_whitespace().any(|uid| uid == "0"), "{status}");
        assert_eq!((line("CapBnd:"), line("NoNewPrivs:")), ("0000000000000000".to_owned(), "1".to_owned()));
        let key = fs::metadata(home(&dir).join("config.iso")).unwrap();
        assert_eq!(key.permissions().mode() & 0o077, 0, "nobody else reads its keys");

        // The next `serve`. What was done is done again, as whoever was killed does it.
        let (driver, deaths) = open(&dir, &config, &image);
        let mut deaths = deaths.subscribe();
        assert_eq!(driver.list().await.unwrap(), BTreeSet::from([machine.name.clone()]));
        assert_eq!(driver.alive(&machine.name).await.unwrap(), Liveness::Running);
        driver.create(&machine).await.unwrap();
        for interface in [&first, &second, &first] {
            driver.plug(&machine.name, interface).await.unwrap();
        }
        assert_eq!(pid(&dir), process);
        assert_eq!(cards(&dir).await, BTreeSet::from([first.mac.clone(), second.mac.clone()]));
        let taps_there = taps();
        assert_eq!(taps_there.len(), 3, "{taps_there:?}");
        let management = bridges::name(&config.compute.management.id);
        assert_eq!(taps_there.iter().filter(|(_, bridge)| *bridge == management).count(), 1);
        assert_eq!(taps_there.iter().filter(|(_, bridge)| *bridge == first.bridge).count(), 2);

        // There is no system in it that would let the card go: it has it for ever, and nothing behind it.
        driver.unplug(&machine.name, &first.port).await.unwrap();
        let left = taps();
        assert_eq!(left.iter().filter(|(_, bridge)| *bridge == first.bridge).count(), 1, "{left:?}");
        let another = Interface { port: "8c2f6a10-0000-4000-8000-000000000003".to_owned(), ..first.clone() };
        driver.plug(&machine.name, &another).await.unwrap();
        assert_eq!(cards(&dir).await.len(), 2, "the address is the same, of which there are two cards now");

        kill(Pid::from_raw(i32::try_from(process).unwrap()), Signal::SIGKILL).unwrap();
        timeout(PATIENCE, deaths.changed()).await.unwrap().unwrap();
        assert_eq!(driver.alive(&machine.name).await.unwrap(), Liveness::Dead);
        assert!(driver.plug(&machine.name, &first).await.is_err());
        driver.delete(&machine.name).await.unwrap();
        driver.delete(&machine.name).await.unwrap();
        assert_eq!(taps(), []);
        assert!(driver.list().await.unwrap().is_empty());
        assert_eq!(driver.alive(&machine.name).await.unwrap(), Liveness::Absent);
    });
}

#[test]
fn one_that_runs_is_taken_down_and_one_that_cannot_start_says_why() {
    with_bridges(|dir, config| async move {
        let image = dir.join("image.qcow2");
        qemu::make_disk(&image);
        // Whom QEMU runs as cannot read it.
        fs::set_permissions(&image, fs::Permissions::from_mode(0o600)).unwrap();
        let (driver, _) = open(&dir, &config, &image);
        let machine = machine(&driver);
        let refused = driver.create(&machine).await.unwrap_err().to_string();
        assert!(refused.contains("QEMU ended: ") && refused.contains("Permission denied"), "{refused}");
        driver.delete(&machine.name).await.unwrap();
        assert!(!home(&dir).exists());

        fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).unwrap();
        driver.create(&machine).await.unwrap();
        let process = pid(&dir);
        driver.delete(&machine.name).await.unwrap();
        assert!(!Path::new(&format!("/proc/{process}")).exists());
        assert_eq!(taps(), []);
        assert!(!home(&dir).exists());
    });
}
