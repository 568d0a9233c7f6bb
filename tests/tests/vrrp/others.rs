//! Others who speak the protocol: FRR's vrrpd, version 3 over both families, and tshark, which reads what we send.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    amphora::{Amphora, Program, wait},
    lan::{Host, Lan, VIP, VIP6},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Where Debian has FRR's daemons.
const FRR: &str = "/usr/lib/frr";

/// Two virtual routers, one a family, over multicast.
fn document(priority: u8) -> String {
    format!(
        r#"{{"instances": [
            {{"name": "v4", "interface": "eth1", "vrid": 5, "priority": {priority}, "addresses": [{{"address": "{VIP}"}}]}},
            {{"name": "v6", "interface": "eth1", "vrid": 5, "priority": {priority}, "addresses": [{{"address": "{VIP6}"}}]}}
        ]}}"#
    )
}

/// FRR's zebra and vrrpd on a host.
struct Frr {
    _host: Host,
    directory: TempDir,
    daemons: Vec<Child>,
}

impl Frr {
    fn start(host: Host, priority: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // FRR's daemons are their own user's.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // It finds its virtual routers by the addresses of these interfaces.
        for (name, mac, address) in [
            ("vrrp4", "00:00:5e:00:01:05", format!("{VIP}/24")),
            ("vrrp6", "00:00:5e:00:02:05", format!("{VIP6}/64")),
        ] {
            let namespace = &host.namespace;
            namespace.ip(&[
                "link", "add", name, "link", "eth1", "address", mac, "type", "macvlan", "mode", "bridge",
            ]);
            namespace.ip(&["address", "add", &address, "dev", name, "nodad"]);
            namespace.ip(&["link", "set", name, "up"]);
        }
        let vrrp = format!(
            "interface eth1\n vrrp 5 version 3\n vrrp 5 priority {priority}\n vrrp 5 advertisement-interval 1000\n \
             vrrp 5 ip {VIP}\n vrrp 5 ipv6 {VIP6}\n"
        );
        fs::write(directory.path().join("zebra.conf"), "").unwrap();
        fs::write(directory.path().join("vrrpd.conf"), vrrp).unwrap();
        let mut frr = Self { _host: host, directory, daemons: Vec::new() };
        for daemon in ["zebra", "vrrpd"] {
            let path = |name: &str| frr.directory.path().join(name);
            let log = fs::File::create(path(&format!("{daemon}.log"))).unwrap();
            let mut command = Command::new("ip");
            command.args(["netns", "exec", frr._host.namespace.name()]).arg(Path::new(FRR).join(daemon));
            command.args(["-P", "0", "--log", "stdout", "-f"]);
            command.arg(path(&format!("{daemon}.conf"))).arg("-i").arg(path(&format!("{daemon}.pid")));
            command.arg("-z").arg(path("zserv.api")).arg("--vty_socket").arg(frr.directory.path());
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            frr.daemons.push(command.spawn().unwrap());
            let vty = path(&format!("{daemon}.vty"));
            wait(daemon, PATIENCE, || vty.exists());
        }
        frr
    }

    /// The states of its two virtual routers.
    fn states(&self) -> [String; 2] {
        let shown = Command::new("vtysh")
            .arg("--vty_socket")
            .arg(self.directory.path())
            .args(["-c", "show vrrp json"])
            .output()
            .unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        ["v4", "v6"].map(|family| shown[0][family]["status"].as_str().unwrap_or_default().to_owned())
    }

    fn are(&self, state: &str) -> bool {
        self.states().iter().all(|is| is == state)
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("vrrpd.log")).unwrap_or_default();
            eprintln!("vrrpd is {:?} and logged:\n{log}", self.states());
        }
    }
}

fn ours_are(amphora: &Amphora, state: &str) -> bool {
    let status = amphora.control("GET", "/status");
    status["instances"].as_array().unwrap().iter().all(|instance| instance["state"] == state)
}

#[test]
fn frr_and_ours_follow_each_other_in_version_3_over_both_families() {
    if !Path::new(FRR).join("vrrpd").exists() {
        eprintln!("SKIPPED: no FRR here (package frr)");
        return;
    }
    let Some(mut lan) = Lan::new() else { return };
    let (ours, theirs) = (lan.host(101).unwrap(), lan.host(102).unwrap());
    let frr = Frr::start(theirs, 90);
    wait("vrrpd is alone and becomes master", PATIENCE, || frr.are("Master"));

    // The higher priority preempts.
    let mut ours = Amphora::new(ours, Program::Ours);
    ours.start(&document(100));
    wait("ours takes over", PATIENCE, || ours.has_vip() && frr.are("Backup"));
    assert!(ours_are(&ours, "MASTER"));

    // It says that it stops, and vrrpd does not wait for its master-down timer.
    ours.stop();
    let took = wait("vrrpd takes over", PATIENCE, || frr.are("Master"));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(!ours.has_vip());

    // The lower priority listens, and follows when vrrpd is gone.
    ours.start(&document(80));
    wait("ours is a backup", PATIENCE, || ours.path_exists("vrrp.sock") && ours_are(&ours, "BACKUP"));
    let heard = || {
        let status = ours.control("GET", "/status");
        (0..2).all(|n| status["instances"][n]["counters"]["received"].as_u64() > Some(2))
    };
    wait("it hears vrrpd", PATIENCE, heard);
    assert!(ours_are(&ours, "BACKUP") && frr.are("Master"));
    drop(frr);
    wait("ours takes over", PATIENCE, || ours_are(&ours, "MASTER"));
}

#[test]
fn tshark_reads_what_we_send_without_a_complaint() {
    if Command::new("tshark").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: no tshark here (package tshark)");
        return;
    }
    let Some(mut lan) = Lan::new() else { return };
    let mut ours = Amphora::new(lan.host(101).unwrap(), Program::Ours);
    let client = lan.host(10).unwrap();
    let capture = ours.base_path().join("advertisements.pcapng");
    let mut tshark = Command::new("ip")
        .args([
            "netns",
            "exec",
            client.namespace.name(),
            "tshark",
            "-q",
            "-i",
            "eth1",
            "-f",
            "ip proto 112 or ip6 proto 112",
        ])
        .arg("-w")
        .arg(&capture)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait("tshark captures", PATIENCE, || capture.exists());
    let v2 = r#"{"name": "v2", "interface": "eth1", "vrid": 6, "version": 2, "password": "secret",
                 "addresses": [{"address": "10.77.0.99"}]}, {"name": "v4""#;
    ours.start(&document(255).replacen(r#"{"name": "v4""#, v2, 1));
    let fields = [
        "-T",
        "fields",
        "-e",
        "vrrp.version",
        "-e",
        "vrrp.checksum.status",
        "-e",
        "_ws.malformed",
        "-e",
        "_ws.expert",
    ];
    let seen = || {
        let read = Command::new("tshark")
            .arg("-r")
            .arg(&capture)
            .args(["-Y", "vrrp"])
            .args(fields)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    // Two of each at least: version 2 becomes master after its master-down interval.
    wait("advertisements of both versions", PATIENCE, || {
        let seen = seen();
        ["2", "3"].iter().all(|version| seen.iter().filter(|line| line[0] == *version).count() >= 4)
    });
    let _ = tshark.kill();
    let _ = tshark.wait();
    for line in seen() {
        assert_eq!(line[1], "1", "the checksum is good: {line:?}");
        assert!(line[2..].iter().all(String::is_empty), "{line:?}");
    }
}
