#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::serve::config::Config;

fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        image: None,
        programs: ["qemu-system-x86_64", "qemu-img", "genisoimage"].map(PathBuf::from),
        accel: Some(Accel::Tcg),
        user: None,
        management: Config::parse("").unwrap().compute.management,
        heartbeats: ("10.251.0.1:5555".parse().unwrap(), "key".to_owned(), 3),
        boot_time: Duration::from_secs(1),
        lets_go: LETS_GO,
    }
}

fn open(settings: Settings) -> Result<Qemu> {
    let roots = rustls::RootCertStore::empty();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.unwrap().with_root_certificates(roots).with_no_client_auth();
    let (_, tls) = watch::channel(Arc::new(tls));
    Qemu::open(settings, "0123abcd", Driver::new(tls), Deaths::default())
}

const ID: &str = "3c63f388-da4f-44a3-982d-45d8e243d502";

#[test]
fn names_are_of_the_instance_and_fit() {
    let dir = tempfile::tempdir().unwrap();
    let this = open(settings(dir.path())).unwrap();
    let name = this.name(ID);
    assert_eq!(name, "amphora-vm-0123abcd-3c63f388da4f44a3");
    assert!(this.owns(&name) && !this.owns("amphora-0123abcd-3c63f388da4f44a3"));
    assert_eq!(this.directory(&name), dir.path().join("3c63f388da4f44a3"));
    assert_eq!(this.tap('m', this.short(&name)), "m0123a3c63f388d");
}

#[test]
fn what_cannot_work_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |settings| open(settings).unwrap_err().to_string();
    let long = settings(&dir.path().join("x".repeat(80)));
    assert!(refused(long).contains("too long a path"));
    let image = dir.path().join("image");
    let with = |image: &Path| Settings { image: Some(image.to_owned()), ..settings(dir.path()) };
    assert!(refused(with(&image)).contains("[compute] image"));
    fs::write(&image, b"QFI\xfb").unwrap();
    let mut missing = with(&image);
    missing.programs[0] = "/no/such/qemu".into();
    assert_eq!(refused(missing), "/no/such/qemu is not there");
    let nobody = Settings { programs: ["sh", "sh", "sh"].map(PathBuf::from), ..with(&image) };
    let user = Settings { user: Some("no-such-user".to_owned()), ..nobody };
    assert_eq!(refused(user), "[compute] qemu_user: there is no no-such-user");
}

#[tokio::test]
async fn what_is_not_there_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let this = open(settings(dir.path())).unwrap();
    let name = this.name(ID);
    assert_eq!(this.alive(&name).await.unwrap(), Liveness::Absent);
    assert!(this.list().await.unwrap().is_empty());
    this.delete(&name).await.unwrap();
    let left = this.directory(&name);
    fs::create_dir(&left).unwrap();
    assert_eq!(this.list().await.unwrap(), BTreeSet::from([name.clone()]));
    assert_eq!(this.alive(&name).await.unwrap(), Liveness::Dead);
    this.delete(&name).await.unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn what_cannot_be_found_out_is_no_death() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("machines");
    let this = open(settings(&place)).unwrap();
    let name = this.name(ID);
    let gone = this.alive(&name).await.unwrap_err().to_string();
    assert!(gone.contains("machines: is not there"), "{gone}");
    assert!(this.list().await.unwrap().is_empty(), "before the first machine");
    fs::write(&place, "").unwrap();
    assert!(this.alive(&name).await.is_err() && this.list().await.is_err());
    fs::remove_file(&place).unwrap();
    fs::create_dir_all(&place).unwrap();
    // It cannot be looked into, whoever asks.
    fs::write(this.directory(&name), "").unwrap();
    assert!(this.alive(&name).await.is_err());
    assert!(this.delete(&name).await.is_err());
    fs::remove_file(this.directory(&name)).unwrap();
    assert_eq!(this.alive(&name).await.unwrap(), Liveness::Absent);
}

#[tokio::test]
async fn without_an_image_there_is_no_machine() {
    let dir = tempfile::tempdir().unwrap();
    let this = open(settings(dir.path())).unwrap();
    let machine = Machine {
        name: this.name(ID),
        amphora: ID.to_owned(),
        agent: "10.251.0.2:9443".parse().unwrap(),
        paired: false,
        size: crate::serve::compute::Size { memory: 256, cpus: 1 },
        authority: String::new(),
        certificate: String::new(),
    };
    let refused = this.create(&machine).await.unwrap_err().to_string();
    assert_eq!(refused, "virtual machines: [compute] image is not set");
}

#[test]
fn a_machine_that_stands_still_has_ended() {
    for (status, ended) in [
        ("running", false),
        ("paused", false),
        ("prelaunch", false),
        ("io-error", true),
        ("internal-error", true),
    ] {
        assert_eq!(has_ended(&json!({"status": status, "running": !ended})), ended, "{status}");
    }
}
