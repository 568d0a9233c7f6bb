//! What a killed process, a refused document and a full disk leave behind.
#![allow(clippy::unwrap_used)]

use std::{
    thread,
    time::{Duration, Instant},
};

use super::*;

const CURRENT: &str = Kept::LoadBalancer.current();
const PREVIOUS: &str = Kept::LoadBalancer.previous();
const OLDER: &str = Kept::LoadBalancer.older();

struct Fixture {
    _dir: tempfile::TempDir,
    base: PathBuf,
    store: Store,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("octavia");
    let store = Store::open(&base).unwrap();
    Fixture { _dir: dir, base, store }
}

impl Fixture {
    fn documents(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        (
            self.store.read(Kept::LoadBalancer, Slot::Current).unwrap(),
            self.store.read(Kept::LoadBalancer, Slot::Previous).unwrap(),
        )
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.base)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

#[test]
fn documents_move_down_and_back_up() {
    let f = fixture();
    assert_eq!(f.documents(), (None, None));
    assert_eq!(f.store.stage(Kept::LoadBalancer, b"a").unwrap(), Staged::First);
    assert_eq!(f.store.stage(Kept::LoadBalancer, b"a").unwrap(), Staged::Unchanged);
    assert_eq!(f.documents(), (bytes("a"), None));
    assert_eq!(f.store.stage(Kept::LoadBalancer, b"b").unwrap(), Staged::Replaced);
    let staged = f.store.stage(Kept::LoadBalancer, b"c").unwrap();
    assert_eq!(f.documents(), (bytes("c"), bytes("b")));
    f.store.unstage(Kept::LoadBalancer, staged).unwrap();
    assert_eq!(f.documents(), (bytes("b"), bytes("a")));
    for refused in [b"d", b"e", b"d"] {
        let staged = f.store.stage(Kept::LoadBalancer, refused).unwrap();
        assert_eq!(f.documents().1, bytes("b"));
        f.store.unstage(Kept::LoadBalancer, staged).unwrap();
        assert_eq!(f.documents(), (bytes("b"), bytes("a")));
    }
    assert_eq!(f.store.stage(Kept::LoadBalancer, b"f").unwrap(), Staged::Replaced);
    assert_eq!(f.documents(), (bytes("f"), bytes("b")));
    f.store.remove(Kept::LoadBalancer).unwrap();
    assert_eq!(f.files(), [""; 0]);
}

#[test]
fn the_vrrp_configuration_is_kept_apart() {
    let f = fixture();
    let _ = f.store.stage(Kept::LoadBalancer, b"lb").unwrap();
    let _ = f.store.stage(Kept::Vrrp, b"a").unwrap();
    let staged = f.store.stage(Kept::Vrrp, b"b").unwrap();
    assert_eq!(fs::read(f.base.join("vrrp.conf")).unwrap(), b"b");
    f.store.unstage(Kept::Vrrp, staged).unwrap();
    assert_eq!(f.store.read(Kept::Vrrp, Slot::Current).unwrap(), bytes("a"));
    fs::write(f.base.join("vrrp.conf.unfinished"), b"c").unwrap();
    Store::open(&f.base).unwrap();
    assert_eq!(f.files(), [CURRENT, "vrrp.conf"]);
    f.store.remove(Kept::Vrrp).unwrap();
    assert_eq!((f.files(), f.documents()), (vec![CURRENT.to_owned()], (bytes("lb"), None)));
}

#[test]
fn a_refused_first_document_leaves_none() {
    let f = fixture();
    let staged = f.store.stage(Kept::LoadBalancer, b"a").unwrap();
    f.store.unstage(Kept::LoadBalancer, staged).unwrap();
    assert_eq!(f.documents(), (None, None));
}

/// Every state of the directory in which a killed process can leave it, made by hand.
#[test]
fn a_kill_between_any_two_steps_leaves_a_whole_document() {
    type Kill = fn(&Path);
    let kills: [(&str, Kill); 7] = [
        ("before the older is renamed", |base| {
            fs::write(base.join("loadbalancer.json.unfinished"), b"new").unwrap();
            fs::hard_link(base.join(PREVIOUS), base.join("loadbalancer.older.json.unfinished")).unwrap();
        }),
        ("before the older's second name is removed", |base| {
            fs::write(base.join("loadbalancer.json.unfinished"), b"new").unwrap();
            fs::hard_link(base.join(PREVIOUS), base.join(OLDER)).unwrap();
            fs::hard_link(base.join(PREVIOUS), base.join("loadbalancer.older.json.unfinished")).unwrap();
        }),
        ("while a change is taken back", |base| {
            fs::rename(base.join(PREVIOUS), base.join(OLDER)).unwrap();
        }),
        ("while writing", |base| fs::write(base.join("loadbalancer.json.unfinished"), b"ne").unwrap()),
        ("before the previous is linked", |base| {
            fs::write(base.join("loadbalancer.json.unfinished"), b"new").unwrap();
        }),
        ("before the previous is renamed", |base| {
            fs::write(base.join("loadbalancer.json.unfinished"), b"new").unwrap();
            fs::hard_link(base.join(CURRENT), base.join("loadbalancer.previous.json.unfinished")).unwrap();
        }),
        ("before the current is renamed", |base| {
            fs::write(base.join("loadbalancer.json.unfinished"), b"new").unwrap();
            fs::hard_link(base.join(PREVIOUS), base.join(OLDER)).unwrap();
            let link = base.join("loadbalancer.previous.json.unfinished");
            fs::hard_link(base.join(CURRENT), &link).unwrap();
            fs::rename(&link, base.join(PREVIOUS)).unwrap();
        }),
    ];
    for (when, kill) in kills {
        let f = fixture();
        let _ = f.store.stage(Kept::LoadBalancer, b"oldest").unwrap();
        let _ = f.store.stage(Kept::LoadBalancer, b"old").unwrap();
        kill(&f.base);
        let store = Store::open(&f.base).unwrap();
        assert_eq!(f.documents(), (bytes("old"), bytes("oldest")), "{when}");
        assert!(!f.files().iter().any(|name| name.ends_with(UNFINISHED)), "{when}");
        assert_eq!(store.stage(Kept::LoadBalancer, b"next").unwrap(), Staged::Replaced, "{when}");
        assert_eq!(f.documents(), (bytes("next"), bytes("old")), "{when}");
    }
}

#[test]
fn a_step_that_fails_leaves_the_document_before() {
    let f = fixture();
    let _ = f.store.stage(Kept::LoadBalancer, b"old").unwrap();
    // A directory in its place makes the step fail, whoever runs the test.
    let blocked = f.base.join("loadbalancer.json.unfinished");
    fs::create_dir(&blocked).unwrap();
    assert!(f.store.stage(Kept::LoadBalancer, b"new").is_err());
    fs::remove_dir(&blocked).unwrap();
    fs::create_dir(f.base.join(PREVIOUS)).unwrap();
    assert!(f.store.stage(Kept::LoadBalancer, b"new").is_err());
    fs::remove_dir(f.base.join(PREVIOUS)).unwrap();
    assert_eq!(f.documents(), (bytes("old"), None));
    let _ = f.store.stage(Kept::LoadBalancer, b"newer").unwrap();
    for blocked in ["loadbalancer.older.json", "loadbalancer.previous.json.unfinished"] {
        let blocked = f.base.join(blocked);
        fs::create_dir(&blocked).unwrap();
        assert!(f.store.stage(Kept::LoadBalancer, b"newest").is_err());
        assert_eq!(f.documents(), (bytes("newer"), bytes("old")));
        fs::remove_dir(&blocked).unwrap();
        let _ = fs::remove_file(f.base.join(OLDER));
    }
    assert!(!f.files().contains(&"loadbalancer.json.unfinished".to_owned()));
}

#[test]
fn counters_are_replaced_whole() {
    let f = fixture();
    assert_eq!(f.store.read_counters().unwrap(), None);
    f.store.write_counters(b"{}").unwrap();
    f.store.write_counters(b"[]").unwrap();
    assert_eq!(f.store.read_counters().unwrap(), bytes("[]"));
    assert_eq!(f.files(), [single::COUNTERS]);
}

/// A file system of 256 KiB, which goes when this does; `None`, told loudly, where it may not be mounted.
struct Tiny(tempfile::TempDir);

impl Tiny {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir)),
            other => {
                eprintln!("SKIPPED: no tmpfs can be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_until_there_is_room_again() {
    let Some(tiny) = Tiny::mount() else { return };
    let store = Store::open(&tiny.0.path().join("octavia")).unwrap();
    let _ = store.stage(Kept::LoadBalancer, b"old").unwrap();
    let scarce = store.troubles();
    assert!(scarce.len() == 1 && scarce[0].contains("KiB are free in"), "{scarce:?}");

    let ballast = tiny.0.path().join("ballast");
    let filled = fs::write(&ballast, vec![1; 1 << 20]).unwrap_err();
    assert!(is_full(&filled), "{filled}");
    let error = store.stage(Kept::LoadBalancer, &[b'x'; 100_000]).unwrap_err();
    assert!(is_full(&error), "{error}");
    assert!(store.write_counters(&[b'x'; 8_000]).is_err());
    assert_eq!(store.read(Kept::LoadBalancer, Slot::Current).unwrap(), bytes("old"));
    for _ in 0..2 {
        let told = store.troubles();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("cannot write loadbalancer.json: No space left"), "{told:?}");
        assert!(told[1].starts_with("cannot write stats_counters.json: No space left"), "{told:?}");
    }

    // Room for the counters alone does not make room for a document.
    fs::OpenOptions::new().write(true).open(&ballast).unwrap().set_len(200_000).unwrap();
    assert!(store.stage(Kept::LoadBalancer, &[b'x'; 100_000]).is_err());
    assert_eq!(store.troubles().len(), 2, "{:?}", store.troubles());
    fs::remove_file(&ballast).unwrap();
    assert_eq!(store.troubles(), scarce);
    assert_eq!(store.read(Kept::LoadBalancer, Slot::Current).unwrap(), bytes("old"));
    assert_eq!(fs::read_dir(tiny.0.path().join("octavia")).unwrap().count(), 1);
}

#[test]
fn a_document_with_less_in_it_has_room_on_a_full_disk() {
    let Some(tiny) = Tiny::mount() else { return };
    let base = tiny.0.path().join("octavia");
    let store = Store::open(&base).unwrap();
    let document = |letter: u8, length| vec![letter; length];
    let current = |store: &Store| store.read(Kept::LoadBalancer, Slot::Current).unwrap().unwrap();
    let previous = |store: &Store| store.read(Kept::LoadBalancer, Slot::Previous).unwrap();
    let _ = store.stage(Kept::LoadBalancer, &document(b'a', 40_000)).unwrap();
    store.reserve(40_000).unwrap();
    store.reserve(1).unwrap();
    let ballast = tiny.0.path().join("ballast");
    assert!(is_full(&fs::write(&ballast, vec![1; 1 << 20]).unwrap_err()));
    // More of it there is not, and what there is stays.
    assert!(is_full(&store.reserve(200_000).unwrap_err()));
    assert_eq!(fs::metadata(base.join(reserve::RESERVE)).unwrap().len(), 40_960);
    assert!(is_full(&store.stage(Kept::LoadBalancer, &document(b'b', 39_000)).unwrap_err()));

    // It is taken back when it is refused, and room is kept still: what ran before takes that of the reserve.
    let staged = store.stage_less(Kept::LoadBalancer, &document(b'b', 39_000)).unwrap();
    assert_eq!((current(&store), staged), (document(b'b', 39_000), Staged::Replaced));
    assert_eq!(previous(&store), Some(document(b'a', 40_000)));
    store.unstage(Kept::LoadBalancer, staged).unwrap();
    assert_eq!(current(&store), document(b'a', 40_000));
    store.reserve(40_000).unwrap();
    let _ = store.stage_less(Kept::LoadBalancer, &document(b'b', 39_000)).unwrap();
    // Again and again, by what the documents before leave; a process that was killed in between finds a whole one.
    for (letter, length) in [(b'c', 30_000), (b'd', 29_000), (b'e', 28_000), (b'f', 27_000), (b'g', 1)] {
        let _ = store.stage_less(Kept::LoadBalancer, &document(letter, length)).unwrap();
        assert_eq!(current(&Store::open(&base).unwrap()), document(letter, length));
    }
    let mode = fs::metadata(base.join(CURRENT)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    store.remove(Kept::LoadBalancer).unwrap();
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
}

#[test]
fn a_process_killed_while_kept_room_is_written_to_leaves_a_whole_document() {
    for spare in [reserve::RESERVE, OLDER, PREVIOUS] {
        let f = fixture();
        for document in [&b"oldest"[..], b"older", b"old"] {
            let _ = f.store.stage(Kept::LoadBalancer, document).unwrap();
        }
        f.store.reserve(1).unwrap();
        fs::rename(f.base.join(spare), f.base.join("loadbalancer.json.unfinished")).unwrap();
        let store = Store::open(&f.base).unwrap();
        let (current, previous) = f.documents();
        assert_eq!(current, bytes("old"), "{spare}");
        assert_eq!(previous, bytes(if spare == PREVIOUS { "oldest" } else { "older" }), "{spare}");
        let _ = store.stage_less(Kept::LoadBalancer, b"new").unwrap();
        assert_eq!(f.documents(), (bytes("new"), bytes("old")), "{spare}");
    }
}

#[test]
fn a_certificate_that_the_disk_has_no_room_for_leaves_the_one_before() {
    let Some(tiny) = Tiny::mount() else { return };
    let base = tiny.0.path().join("octavia");
    let store = Store::open(&base).unwrap();
    let id = "a".parse().unwrap();
    let _ = store.stage_certificate(&id, b"old").unwrap();
    store.keep_certificate(&id).unwrap();
    let ballast = tiny.0.path().join("ballast");
    assert!(is_full(&fs::write(&ballast, vec![1; 1 << 20]).unwrap_err()));
    for other in ["a", "b"] {
        let (error, left) = store.stage_certificate(&other.parse().unwrap(), &[b'x'; 100_000]).unwrap_err();
        assert!(is_full(&error) && left == Staged::Unchanged, "{error}");
    }
    let there = |store: &Store| {
        let text = |id| (store.read_certificate(&id).unwrap().to_vec(), id);
        store.certificates().unwrap().into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(there(&store), [(b"old".to_vec(), id.clone())]);
    assert_eq!(fs::read_dir(base.join("certificates")).unwrap().count(), 1, "nothing is left half done");
    fs::remove_file(&ballast).unwrap();
    assert_eq!(store.stage_certificate(&id, b"new").unwrap(), Staged::Replaced);
    store.keep_certificate(&id).unwrap();
    assert_eq!(there(&Store::open(&base).unwrap()), [(b"new".to_vec(), id)]);
}

#[test]
fn a_change_that_failed_is_told_until_one_succeeds() {
    let f = fixture();
    let _ = f.store.stage(Kept::LoadBalancer, b"old").unwrap();
    assert_eq!(f.store.troubles(), [""; 0]);
    fs::create_dir(f.base.join(PREVIOUS)).unwrap();
    assert!(f.store.stage(Kept::LoadBalancer, b"new").is_err());
    fs::remove_dir(f.base.join(PREVIOUS)).unwrap();
    // It was not for lack of room, so that there is room says nothing.
    assert_eq!(f.store.troubles().len(), 1);
    assert_eq!(f.store.stage(Kept::LoadBalancer, b"old").unwrap(), Staged::Unchanged);
    f.store.write_counters(b"{}").unwrap();
    assert_eq!(f.store.troubles().len(), 1, "nothing of it was written");
    let _ = f.store.stage(Kept::LoadBalancer, b"new").unwrap();
    assert_eq!(f.store.troubles(), [""; 0]);
}

const WRITER: &str = "AMPHORA_TEST_STORE_WRITER";

/// The body of the process that the next test kills; nothing when it is run as a test.
#[test]
fn writes_until_killed() {
    let Some(base) = std::env::var_os(WRITER) else { return };
    let store = Store::open(Path::new(&base)).unwrap();
    for round in 0u64.. {
        let staged = store.stage(Kept::LoadBalancer, &document(round)).unwrap();
        if round % 3 == 0 {
            store.unstage(Kept::LoadBalancer, staged).unwrap();
        }
    }
}

/// Its number, so often that a torn one shows.
fn document(round: u64) -> Vec<u8> {
    round.to_le_bytes().repeat(2000)
}

#[test]
fn a_process_killed_at_any_moment_leaves_whole_documents() {
    let f = fixture();
    let mut found = 0;
    let stored = || fs::read(f.base.join(CURRENT)).ok();
    for round in 0u64..40 {
        let before = stored();
        let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::writes_until_killed"])
            .env(WRITER, &f.base)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // While it starts, which takes what the machine makes it take; or once it writes.
        let deadline = Instant::now() + Duration::from_secs(60);
        while round % 2 == 1 && stored() == before && Instant::now() < deadline {
            thread::sleep(Duration::from_micros(100));
        }
        thread::sleep(Duration::from_micros(3000 + 977 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let (current, previous) = Fixture { store: Store::open(&f.base).unwrap(), ..fixture() }.documents();
        let number = |stored: Vec<u8>| {
            let number = u64::from_le_bytes(stored[..8].try_into().unwrap());
            assert!(stored == document(number), "{number} is torn");
            number
        };
        let Some(current) = current.map(number) else { continue };
        found += 1;
        // Of the first three, 1 is the first that stays.
        let previous = previous.map(number);
        assert!(current < 2 || previous.is_some_and(|previous| previous < current), "{previous:?} {current}");
    }
    assert!(found >= 20, "writers get so far once one waits for them: {found}");
}
