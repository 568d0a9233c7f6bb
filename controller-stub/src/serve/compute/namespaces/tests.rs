#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn open(dir: &Path) -> Result<Namespaces> {
    let agent = PathBuf::from("/bin/true");
    let settings = Settings { dir: dir.to_owned(), agent, proxy: None, vrrp: None, heartbeats: None };
    Namespaces::open(settings, Deaths::default())
}

#[test]
fn names_are_of_the_directory_and_fit() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let (id, port) = ("3c63f388-da4f-44a3-982d-45d8e243d502", "9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33");
    let first = open(&one).unwrap();
    assert_eq!(open(&one).unwrap().name(id), first.name(id), "of the next start, too");
    assert_ne!(open(&other).unwrap().name(id), first.name(id));
    assert!(first.links(port).iter().all(|name| name.len() == 15));
    assert_eq!(first.directory(&first.name(id)), one.join("3c63f388da4f44a3"));
}

#[test]
fn what_cannot_work_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(80));
    assert!(open(&long).unwrap_err().to_string().contains("too long a path"));
    let settings = Settings {
        dir: dir.path().to_owned(),
        agent: "/nonexistent/agent".into(),
        proxy: None,
        vrrp: None,
        heartbeats: None,
    };
    let this = Namespaces::open(settings, Deaths::default()).unwrap();
    assert!(this.check().unwrap_err().to_string().contains("/nonexistent/agent"));
}

/// Programs of amphorae are another user's where this is root.
#[test]
fn who_does_not_get_to_its_files_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let above = dir.path().join("above");
    let settings = Settings {
        dir: above.join("data/amphorae"),
        agent: std::env::current_exe().unwrap(),
        proxy: None,
        vrrp: None,
        heartbeats: None,
    };
    let this = Namespaces::open(settings, Deaths::default()).unwrap();
    for (mode, passes) in [(0o711, true), (0o700, false), (0o755, true), (0o710, false)] {
        fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
        match this.check() {
            Err(error) if !passes => {
                let text = error.to_string();
                assert!(
                    text.contains(&format!("above: programs of other users do not pass (mode {mode:o})")),
                    "{text}"
                );
            }
            done => assert!(done.is_ok() && (passes || !geteuid().is_root()), "{mode:o} {done:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_there_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let this = open(dir.path()).unwrap();
    let name = this.name("3c63f388-da4f-44a3-982d-45d8e243d502");
    assert_eq!(this.alive(&name).await.unwrap(), Liveness::Absent);
    this.delete(&name).await.unwrap();
    let left = dir.path().join("3c63f388da4f44a3");
    fs::create_dir(&left).unwrap();
    assert_eq!(this.list().await.unwrap(), BTreeSet::from([name.clone()]));
    assert_eq!(this.alive(&name).await.unwrap(), Liveness::Dead);
    this.delete(&name).await.unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn what_cannot_be_found_out_is_no_death() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("amphorae");
    let this = open(&place).unwrap();
    let name = this.name("3c63f388-da4f-44a3-982d-45d8e243d502");
    let own = place.join("3c63f388da4f44a3");
    // It cannot be looked into, whoever asks.
    fs::write(&own, "").unwrap();
    assert!(this.alive(&name).await.is_err());
    assert!(this.delete(&name).await.is_err());
    fs::remove_file(&own).unwrap();
    assert_eq!(this.alive(&name).await.unwrap(), Liveness::Absent);
    // All of it is gone, as what was mounted there, or is something else.
    fs::rename(&place, dir.path().join("aside")).unwrap();
    let gone = this.alive(&name).await.unwrap_err().to_string();
    assert!(gone.contains("amphorae/instance: is not there"), "{gone}");
    fs::write(&place, "").unwrap();
    assert!(this.alive(&name).await.is_err() && this.list().await.is_err());
}

#[tokio::test]
async fn one_that_runs_is_known_by_its_lock_and_lives_where_its_name_is() {
    let dir = tempfile::tempdir().unwrap();
    let this = open(dir.path()).unwrap();
    let name = this.name("3c63f388-da4f-44a3-982d-45d8e243d502");
    let own = this.directory(&name);
    fs::create_dir(&own).unwrap();
    let lock = this.command(&name).lock().unwrap();
    assert!(this.command(&name).runs().unwrap());
    assert_eq!(this.alive(&name).await.unwrap(), Liveness::Dead, "it has no namespace");
    drop(lock);
    assert!(!this.command(&name).runs().unwrap());
    fs::remove_file(own.join("agent.lock")).unwrap();
    assert!(!this.command(&name).runs().unwrap());
    assert!(!own.join("agent.lock").exists(), "who asks writes nothing");
}
