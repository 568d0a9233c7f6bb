//! The program with drives as OpenStack makes them: what is on them is rendered by Octavia's own code.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use amphora_first_boot::drive::{FileSystem, HEAD, recognise};
use serde_json::{Value, json};

const UUID: &str = "83679162-1378-4288-a2d4-70e13ec132aa";

/// What `ComputeCreate` of Octavia hands to Nova, for each of its two modes, and the user data as PyYAML reads them.
const OCTAVIA: &str = r#"
import json, sys
from unittest import mock
import yaml
from octavia.common import config, utils
from octavia.controller.worker.v2.tasks import compute_tasks
from oslo_config import cfg
config.init([])
amphora, ca, pem = json.load(sys.stdin)
for group, name, value in [
    ("controller_worker", "client_ca", ca), ("controller_worker", "amp_ssh_key_name", "octavia"),
    ("controller_worker", "amp_boot_network_list", ["n"]), ("haproxy_amphora", "build_rate_limit", -1),
    ("health_manager", "controller_ip_port_list", ["192.0.2.10:5555", "[2001:db8::10]:5555"]), ("health_manager", "heartbeat_key", "a\"bc&d"),
    ("certificates", "server_certs_key_passphrase", ["insecure-key-do-not-use-this-key"]),
    ("amphora_agent", "admin_log_targets", ["192.0.2.11:514"]), ("amphora_agent", "tenant_log_targets", ["192.0.2.11:515"]),
]:
    cfg.CONF.set_override(name, value, group)
fernet = utils.get_server_certs_key_passphrases_fernet()
out = []
for in_user_data in (False, True):
    cfg.CONF.set_override("user_data_config_drive", in_user_data, "controller_worker")
    compute = mock.Mock()
    compute.build.return_value = "id"
    with mock.patch.object(compute_tasks.BaseComputeTask, "__init__", lambda self, **_: None):
        task = compute_tasks.CertComputeCreate()
        task.compute = compute
        task.execute(amphora, fernet.encrypt(pem.encode()).decode(), None)
    given = compute.build.call_args.kwargs
    out.append({"files": given["config_drive_files"] or {}, "user_data": given["user_data"], "read": yaml.safe_load(given["user_data"])})
json.dump(out, sys.stdout)
"#;

const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn octavia(directory: &Path) -> Option<Vec<Value>> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/octavia-venv/bin/python"));
    let named = std::env::var_os("AMPHORA_OCTAVIA_PYTHON").map(PathBuf::from);
    let Some(python) = named.or_else(|| beside.exists().then_some(beside)) else {
        eprintln!("SKIPPED: no Octavia; set AMPHORA_OCTAVIA_PYTHON to a Python with the package octavia");
        return None;
    };
    let ca = directory.join("client_ca.pem");
    fs::write(&ca, "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n").unwrap();
    let mut child = Command::new(python)
        .args(["-c", OCTAVIA])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = json!(["0f66bb06-6ab9-4d2f-abb4-8f64a2a92e49", ca, PEM]).to_string();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A drive's files, as Nova lays them out.
fn tree(top: &Path, uuid: &str, files: &Value, user_data: &str) {
    let (latest, content) = (top.join("openstack/latest"), top.join("openstack/content"));
    fs::create_dir_all(&latest).unwrap();
    fs::create_dir_all(&content).unwrap();
    let mut listed = Vec::new();
    for (at, (path, text)) in files.as_object().unwrap().iter().enumerate() {
        fs::write(content.join(format!("{at:04}")), text.as_str().unwrap()).unwrap();
        listed.push(json!({"path": path, "content_path": format!("/content/{at:04}")}));
    }
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA octavia\n";
    let meta_data = json!({
        "uuid": uuid, "name": "amphora-0f66bb06", "hostname": "amphora-0f66bb06.novalocal", "launch_index": 0, "random_seed": "AA==",
        "public_keys": {"octavia": key}, "keys": [{"name": "octavia", "type": "ssh", "data": key}], "devices": [], "files": listed,
    });
    let network_data = json!({
        "links": [{"id": "tap0", "type": "ovs", "ethernet_mac_address": "fa:16:3e:00:00:01", "mtu": 1450, "vif_id": "v"}],
        "networks": [{"id": "network0", "type": "ipv4", "link": "tap0", "ip_address": "10.0.0.5", "netmask": "255.255.255.0",
            "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"}], "services": []}],
        "services": [],
    });
    for (name, text) in [
        ("meta_data.json", meta_data.to_string()),
        ("network_data.json", network_data.to_string()),
        ("vendor_data.json", "{}".to_owned()),
        ("vendor_data2.json", r#"{"static": {}}"#.to_owned()),
        ("user_data", user_data.to_owned()),
    ] {
        fs::write(latest.join(name), text).unwrap();
    }
}

fn first_boot(arguments: &[&str], root: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amphora-first-boot"));
    command.args(arguments).arg("--root").arg(root).stdin(Stdio::null()).output().unwrap()
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(&path[1..])).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn mode(root: &Path, path: &str) -> u32 {
    fs::metadata(root.join(&path[1..])).unwrap().permissions().mode() & 0o7777
}

/// Both modes: all files come as Octavia has rendered them, secrets for root alone.
#[test]
fn octavias_files_come_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let Some(rendered) = octavia(directory.path()) else { return };
    for (in_user_data, rendered) in rendered.iter().enumerate() {
        let (drive, root) = (
            directory.path().join(format!("drive{in_user_data}")),
            directory.path().join(format!("root{in_user_data}")),
        );
        fs::create_dir(&root).unwrap();
        tree(&drive, UUID, &rendered["files"], rendered["user_data"].as_str().unwrap());
        let output = first_boot(&["--drive", drive.to_str().unwrap()], &root);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !log.contains("left out") && !log.contains("ignored"), "{log}");

        let mut expected = rendered["files"].as_object().unwrap().clone();
        for file in rendered["read"]["write_files"].as_array().into_iter().flatten() {
            expected.insert(file["path"].as_str().unwrap().to_owned(), file["content"].clone());
        }
        let paths: Vec<&str> = expected.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "/etc/octavia/amphora-agent.conf",
                "/etc/octavia/certs/client_ca.pem",
                "/etc/octavia/certs/server.pem",
                "/etc/rsyslog.d/10-rsyslog.conf"
            ]
        );
        for (path, content) in &expected {
            assert_eq!(text(&root, path), content.as_str().unwrap(), "{path}");
            let bits = if path.starts_with("/etc/octavia/") { 0o600 } else { 0o644 };
            assert_eq!(mode(&root, path), bits, "{path}");
        }
        assert_eq!(mode(&root, "/etc/octavia/certs"), 0o700);
        assert!(!log.contains("PRIVATE") && !log.contains("c&d"), "no content in the log: {log}");
        let mut script = "#!/bin/sh\n".to_owned();
        for command in rendered["read"]["runcmd"].as_array().unwrap() {
            script += &format!("{}\n", command.as_str().unwrap());
        }
        assert!(script.contains("systemctl restart rsyslog\n"));
        assert_eq!(text(&root, "/var/lib/amphora-first-boot/runcmd"), script);
        assert_eq!(text(&root, "/var/lib/amphora-first-boot/instance-id"), format!("{UUID}\n"));
        assert_eq!(
            text(&root, "/root/.ssh/authorized_keys"),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA octavia\n"
        );
        assert_eq!(text(&root, "/etc/hostname"), "amphora-0f66bb06\n");
        assert!(
            text(&root, "/etc/systemd/network/10-amphora-fa163e000001.network")
                .contains("Address=10.0.0.5/24\n")
        );
    }
}

/// What has changed since the first boot stays, but for name and network; a copy of the disk is another machine.
#[test]
fn the_first_boot_is_once_for_an_instance() {
    let directory = tempfile::tempdir().unwrap();
    let (drive, root) = (directory.path().join("drive"), directory.path().join("root"));
    fs::create_dir(&root).unwrap();
    let files = json!({"/etc/octavia/certs/server.pem": "old"});
    let user_data = "#cloud-config\nwrite_files:\n- {path: /etc/motd, content: x, append: true}\n- {path: /etc/x, permissions: 0640, content: y}\n\
                     runcmd:\n- echo $((1 + 1)) >> ran\n- [sh, -c, 'echo \"$0\" >> ran', \"it's\"]\n";
    tree(&drive, UUID, &files, user_data);
    let drive_argument = drive.to_str().unwrap().to_owned();
    let boot = || {
        let output = first_boot(&["--drive", &drive_argument], &root);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    boot();
    assert_eq!((text(&root, "/etc/x"), mode(&root, "/etc/x")), ("y".to_owned(), 0o640));
    assert!(first_boot(&["runcmd"], &root).status.success());
    assert_eq!(text(&root, "/ran"), "2\nit's\n");

    fs::write(root.join("etc/octavia/certs/server.pem"), "rotated").unwrap();
    let network = root.join("etc/systemd/network/10-amphora-fa163e000001.network");
    fs::remove_file(&network).unwrap();
    fs::write(network.with_file_name("10-amphora-fa163e000002.network"), "old").unwrap();
    boot();
    assert!(first_boot(&["runcmd"], &root).status.success());
    assert_eq!(
        (text(&root, "/ran"), text(&root, "/etc/octavia/certs/server.pem")),
        ("2\nit's\n".to_owned(), "rotated".to_owned())
    );
    assert!(network.exists() && !network.with_file_name("10-amphora-fa163e000002.network").exists());

    tree(&drive, "another", &files, user_data);
    boot();
    assert_eq!(text(&root, "/etc/octavia/certs/server.pem"), "old");
    assert_eq!(text(&root, "/etc/motd"), "x", "what ends with it already is not added to");

    // What cannot be done is said, the rest is done, and the next boot tries again.
    fs::create_dir(root.join("etc/y")).unwrap();
    tree(&drive, "third", &json!({"/etc/y": "y", "/etc/z": "z"}), "#cloud-config\npackages: [x]\n");
    let output = first_boot(&["--drive", &drive_argument], &root);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), text(&root, "/etc/z")), (Some(1), "z".to_owned()), "{log}");
    assert!(log.contains("/etc/y") && log.contains("user data: \"packages\" is left out"), "{log}");
    fs::remove_dir(root.join("etc/y")).unwrap();
    boot();
    assert_eq!(text(&root, "/etc/y"), "y");

    fs::remove_file(drive.join("openstack/latest/meta_data.json")).unwrap();
    let output = first_boot(&["--drive", &drive_argument], &root);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no latest/meta_data.json"));
    assert_eq!(first_boot(&[], &root).status.code(), Some(1), "a directory has no devices");
}

/// Something that never comes about is no reason to do the rest again at each boot: a certificate may have been renewed since.
#[test]
fn what_has_come_about_is_not_done_again_for_what_has_not() {
    let directory = tempfile::tempdir().unwrap();
    let (drive, root) = (directory.path().join("drive"), directory.path().join("root"));
    fs::create_dir_all(root.join("etc/y")).unwrap();
    fs::write(root.join("etc/motd"), "m").unwrap();
    let files = json!({"/etc/octavia/certs/server.pem": "old", "/etc/y": "y"});
    let user_data = "#cloud-config\r\ntimezone: No/Where\r\nwrite_files:\r\n- {path: /etc/motd, content: a, append: yes}\r\n\
                     - {path: /etc/motd, content: b, append: true}\r\n- {path: /etc/whose, content: w, owner: nobody-here}\r\n\
                     runcmd:\r\n- echo again >> ran\r\n";
    tree(&drive, UUID, &files, user_data);
    let drive_argument = drive.to_str().unwrap().to_owned();
    let boot = || {
        let output = first_boot(&["--drive", &drive_argument], &root);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ok, log) = boot();
    assert!(!ok && log.contains("nobody-here") && log.contains("No/Where"), "{log}");
    assert!(first_boot(&["runcmd"], &root).status.success());
    fs::write(root.join("etc/octavia/certs/server.pem"), "renewed").unwrap();
    fs::write(root.join("etc/whose"), "changed").unwrap();
    fs::write(root.join("root/.ssh/authorized_keys"), "").unwrap();
    for _ in 0..2 {
        let (ok, log) = boot();
        assert!(!ok && log.contains("/etc/y") && log.contains("No/Where"), "{log}");
        assert!(first_boot(&["runcmd"], &root).status.success());
    }
    assert_eq!(text(&root, "/etc/octavia/certs/server.pem"), "renewed");
    assert_eq!(
        (text(&root, "/etc/motd"), text(&root, "/etc/whose")),
        ("mab".to_owned(), "changed".to_owned())
    );
    assert_eq!(
        (text(&root, "/ran"), text(&root, "/root/.ssh/authorized_keys")),
        ("again\n".to_owned(), String::new())
    );
    assert_eq!(mode(&root, "/var/lib/amphora-first-boot/partly"), 0o600);

    // What was in the way is gone: the rest comes, and then it is over.
    fs::remove_dir(root.join("etc/y")).unwrap();
    fs::create_dir_all(root.join("usr/share/zoneinfo/No")).unwrap();
    fs::write(root.join("usr/share/zoneinfo/No/Where"), "TZif").unwrap();
    assert!(boot().0);
    assert_eq!(
        (text(&root, "/etc/y"), text(&root, "/etc/octavia/certs/server.pem")),
        ("y".to_owned(), "renewed".to_owned())
    );
    assert_eq!(text(&root, "/var/lib/amphora-first-boot/instance-id"), format!("{UUID}\n"));
    assert!(!root.join("var/lib/amphora-first-boot/partly").exists());
    fs::remove_file(root.join("etc/y")).unwrap();
    assert!(boot().0 && !root.join("etc/y").exists());

    // Another instance begins anew.
    tree(&drive, "another", &files, user_data);
    assert!(!boot().0);
    assert_eq!(text(&root, "/etc/octavia/certs/server.pem"), "old");
}

/// As Nova makes them; read back by the tools that made them, where no kernel may mount.
#[test]
fn drives_are_known_by_their_label() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let run = |program: &str, arguments: &[&str]| match Command::new(program).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(_) => {
            eprintln!("SKIPPED: there is no {program} (apt-get install genisoimage dosfstools mtools)");
            false
        }
    };
    let head = |name: &str| {
        let mut head = Vec::new();
        fs::File::open(at(name)).unwrap().take(HEAD as u64).read_to_end(&mut head).unwrap();
        head
    };
    tree(&directory.path().join("drive"), UUID, &json!({"/etc/motd": "hello"}), "");
    for label in ["config-2", "CONFIG-2", "other"] {
        let expected = |kind| (label != "other").then_some(kind);
        let options = "-quiet -ldots -allow-lowercase -allow-multidot -l -J -r -publisher OpenStack";
        let mut arguments: Vec<&str> = options.split(' ').collect();
        let (iso, drive) = (at("iso"), at("drive"));
        arguments.extend(["-o", &iso, "-V", label, &drive]);
        if run("genisoimage", &arguments) {
            assert_eq!(recognise(&head("iso")), expected(FileSystem::Iso9660), "{label}");
        }
        // FAT12, FAT16 as Nova's 64 MiB, and FAT32.
        for (bits, kib) in [("12", "2048"), ("16", "65536"), ("32", "65536")] {
            let fat = at("fat");
            let _ = fs::remove_file(&fat);
            if run("/usr/sbin/mkfs.vfat", &["-F", bits, "-n", label, "-C", &fat, kib]) {
                assert_eq!(recognise(&head("fat")), expected(FileSystem::Vfat), "FAT{bits} {label}");
            }
        }
    }
    let (fat, back, root) = (at("fat"), at("back"), directory.path().join("root"));
    fs::create_dir(&back).unwrap();
    fs::create_dir(&root).unwrap();
    if Path::new(&fat).exists()
        && run("mcopy", &["-s", "-i", &fat, &at("drive/openstack"), "::/"])
        && run("mcopy", &["-s", "-i", &fat, "::/openstack", &back])
    {
        assert!(first_boot(&["--drive", &back], &root).status.success());
        assert_eq!(text(&root, "/etc/motd"), "hello");
    }
}

/// The service has the same files under the same names. It is not there at once, and not for all of them.
#[test]
fn without_a_drive_the_metadata_service_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let (drive, root) = (directory.path().join("drive"), directory.path().join("root"));
    fs::create_dir(&root).unwrap();
    tree(
        &drive,
        UUID,
        &json!({"/etc/octavia/amphora-agent.conf": "[DEFAULT]\n"}),
        "#cloud-config\nwrite_files:\n- {path: /etc/motd, content: hello}\n",
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut refused, mut refused_content, mut refused_user_data) = (2, 1, 1);
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let left = match path.rsplit('/').next().unwrap() {
                "0000" => &mut refused_content,
                "user_data" => &mut refused_user_data,
                _ => &mut refused,
            };
            let answer = if *left > 0 {
                *left -= 1;
                "HTTP/1.1 503 Service Unavailable\r\n\r\n".to_owned()
            } else {
                match fs::read_to_string(drive.join(&path[1..])) {
                    Ok(text) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()),
                    Err(_) => "HTTP/1.1 404 Not Found\r\n\r\n".to_owned(),
                }
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let output = first_boot(&["metadata", "--url", &url], &root);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && log.contains("network data are not carried out"), "{log}");
    assert_eq!(text(&root, "/etc/octavia/amphora-agent.conf"), "[DEFAULT]\n");
    assert_eq!(text(&root, "/etc/motd"), "hello");
    assert_eq!(text(&root, "/etc/hostname"), "amphora-0f66bb06\n");
    assert!(!root.join("etc/systemd/network").exists());
}
