//! The table: each pair of programs, each way of going.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use amphora_tests::pair::Advertisements;

use crate::{
    amphora::{Amphora, Mood, Program, wait},
    lan::{Lan, VIP},
    render::Role,
};

/// Long enough for a master-down interval of one-second advertisements, and for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long nothing may change where nothing should: more than a master-down interval.
const CALM: Duration = Duration::from_millis(4500);
/// A backup that was told takes over before this: one that only hears nothing waits for more than 2.6 s after its master
/// was last heard, which is at most a second before.
const SAID_SO: Duration = Duration::from_millis(2500);

const PAIRS: [(Program, Program); 3] = [
    (Program::Ours, Program::Keepalived),
    (Program::Keepalived, Program::Ours),
    (Program::Ours, Program::Ours),
];

struct Pair {
    lan: Lan,
    /// Priority 100 at 10.77.0.101.
    a: Amphora,
    /// Priority 90 at 10.77.0.102.
    b: Amphora,
    configs: [String; 2],
}

impl Pair {
    fn new(
        programs: (Program, Program),
        change: impl Fn(&mut Role),
        edit: impl Fn(String) -> String,
    ) -> Option<Self> {
        let mut lan = Lan::new()?;
        let (a, b) = (lan.host(101)?, lan.host(102)?);
        let mut roles = [Role::new(a.address, b.address, 100), Role::new(b.address, a.address, 90)];
        let (a, b) = (Amphora::new(a, programs.0), Amphora::new(b, programs.1));
        roles.iter_mut().for_each(change);
        let configs = [edit(roles[0].render(a.base_path())?), edit(roles[1].render(b.base_path())?)];
        Some(Self { lan, a, b, configs })
    }

    fn plain(programs: (Program, Program)) -> Option<Self> {
        Self::new(programs, |_| {}, |text| text)
    }

    /// With `a` as master and `b` as backup.
    fn settled(programs: (Program, Program)) -> Option<Self> {
        let mut pair = Self::plain(programs)?;
        pair.a.start(&pair.configs[0]);
        wait("the first becomes master", PATIENCE, || pair.a.has_vip());
        pair.b.start(&pair.configs[1]);
        pair.until_calm(true, false);
        Some(pair)
    }

    /// Waits until the VIP has been where it is said to be, and nowhere else, for a while: on a busy machine a backup that
    /// is only just starting may not hear its master in time, and gives way again.
    fn until_calm(&self, at_a: bool, at_b: bool) {
        let (begun, mut since) = (Instant::now(), None);
        while since.is_none_or(|since: Instant| since.elapsed() < CALM) {
            let found = (self.a.has_vip(), self.b.has_vip());
            if found == (at_a, at_b) {
                since.get_or_insert_with(Instant::now);
            } else {
                since = None;
                assert!(begun.elapsed() < PATIENCE, "{found:?} after {:?}", begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the next advertisement of the first that comes to the second, so that a time can be taken from it: a
    /// machine that was busy may have made the last one late.
    fn until_advertised(&self) -> Advertisements {
        let IpAddr::V4(source) = self.a.host.address else { unreachable!("hosts are called by IPv4") };
        let advertisements = Advertisements::capture(&self.b.host.namespace, source);
        wait("an advertisement", PATIENCE, || advertisements.heard() > 0);
        advertisements
    }

    /// For a while the VIP is where it is said to be, and nowhere else.
    fn calm(&self, at_a: bool, at_b: bool) {
        let begun = Instant::now();
        while begun.elapsed() < CALM {
            assert_eq!((self.a.has_vip(), self.b.has_vip()), (at_a, at_b), "after {:?}", begun.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn each_pair(what: &str, test: impl Fn((Program, Program)) + Sync) {
    std::thread::scope(|scope| {
        let running: Vec<_> = PAIRS
            .iter()
            .map(|pair| {
                let test = &test;
                (pair, scope.spawn(move || test(*pair)))
            })
            .collect();
        for ((a, b), run) in running {
            match run.join() {
                Ok(()) => println!("{what}: {a:?} and {b:?}"),
                Err(cause) => std::panic::resume_unwind(cause),
            }
        }
    });
}

#[test]
fn the_master_that_is_killed_is_followed_and_both_hold_the_same() {
    each_pair("killed", |programs| {
        let Some(mut pair) = Pair::settled(programs) else { return };
        wait("the master has its routes and rules", PATIENCE, || pair.a.host.table().len() >= 6);
        let held = pair.a.host.table();
        let advertised = pair.until_advertised();
        pair.a.kill();
        wait("the backup takes over", PATIENCE, || pair.b.has_vip());
        let silent = advertised.since_last();
        assert!(silent > Duration::from_secs(3), "before the master-down interval: {silent:?}");
        // The same routes and rules by either program.
        let begun = Instant::now();
        while pair.b.host.table() != held && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(pair.b.host.table(), held);
    });
}

#[test]
fn the_master_that_stops_says_so_and_leaves_nothing() {
    each_pair("stopped", |programs| {
        let Some(mut pair) = Pair::settled(programs) else { return };
        pair.a.stop();
        assert!(!pair.a.has_vip());
        assert_eq!(pair.a.host.table(), [""; 0]);
        let took = wait("the backup takes over", PATIENCE, || pair.b.has_vip());
        assert!(took < SAID_SO, "{took:?}");
        // The higher priority comes back, and `nopreempt` keeps it a backup.
        pair.a.start(&pair.configs[0]);
        pair.calm(false, true);
    });
}

#[test]
fn a_split_heals_and_the_higher_priority_stays_master() {
    each_pair("split", |programs| {
        let Some(pair) = Pair::settled(programs) else { return };
        pair.lan.isolate([&pair.a.host, &pair.b.host], true);
        wait("both are master", PATIENCE, || pair.a.has_vip() && pair.b.has_vip());
        pair.lan.isolate([&pair.a.host, &pair.b.host], false);
        wait("one gives up", PATIENCE, || !pair.b.has_vip());
        pair.calm(true, false);
    });
}

#[test]
fn equal_priorities_are_settled_by_the_address() {
    each_pair("equal", |programs| {
        let Some(mut pair) = Pair::new(programs, |role| role.priority = 100, |text| text) else { return };
        pair.a.start(&pair.configs[0]);
        wait("the first becomes master", PATIENCE, || pair.a.has_vip());
        pair.b.start(&pair.configs[1]);
        pair.until_calm(true, false);
        pair.lan.isolate([&pair.a.host, &pair.b.host], true);
        wait("both are master", PATIENCE, || pair.a.has_vip() && pair.b.has_vip());
        pair.lan.isolate([&pair.a.host, &pair.b.host], false);
        wait("the lower address gives up", PATIENCE, || !pair.a.has_vip());
        pair.calm(false, true);
    });
}

#[test]
fn with_preemption_the_higher_priority_takes_over() {
    each_pair("preempt", |programs| {
        let preempt = |text: String| text.replace("    nopreempt\n", "");
        let Some(mut pair) = Pair::new(programs, |_| {}, preempt) else { return };
        pair.b.start(&pair.configs[1]);
        wait("the lower priority becomes master", PATIENCE, || pair.b.has_vip());
        pair.a.start(&pair.configs[0]);
        wait("the higher priority takes over", PATIENCE, || pair.a.has_vip() && !pair.b.has_vip());
        pair.calm(true, false);
    });
}

#[test]
fn the_link_of_the_master_goes_down_and_up() {
    each_pair("link", |programs| {
        let Some(pair) = Pair::settled(programs) else { return };
        pair.lan.cut(&pair.a.host, true);
        wait("the backup takes over", PATIENCE, || pair.b.has_vip());
        pair.lan.cut(&pair.a.host, false);
        wait("the one that was cut off gives up", PATIENCE, || !pair.a.has_vip());
        pair.calm(false, true);
    });
}

#[test]
fn other_settings_of_octavia() {
    each_pair("interval 2, long password", |programs| {
        let change = |role: &mut Role| {
            role.advert_int = 2;
            role.auth_pass = "longer than eight".to_owned();
        };
        let Some(mut pair) =
            Pair::new(programs, change, |text| text.replace("longer than eight", "longerthaneight"))
        else {
            return;
        };
        pair.a.start(&pair.configs[0]);
        wait("the first becomes master", PATIENCE, || pair.a.has_vip());
        pair.b.start(&pair.configs[1]);
        pair.until_calm(true, false);
        pair.a.stop();
        wait("the backup takes over", PATIENCE, || pair.b.has_vip());
    });
}

#[test]
fn version_3() {
    each_pair("version 3", |programs| {
        let edit = |text: String| {
            let (head, tail) = text.split_once("    authentication {").unwrap();
            let (_, tail) = tail.split_once("    }\n").unwrap();
            format!("{head}{tail}").replace("advert_int 1", "advert_int 0.2\n    version 3")
        };
        let Some(mut pair) = Pair::new(programs, |_| {}, edit) else { return };
        pair.a.start(&pair.configs[0]);
        wait("the first becomes master", PATIENCE, || pair.a.has_vip());
        pair.b.start(&pair.configs[1]);
        pair.until_calm(true, false);
        pair.a.kill();
        let took = wait("the backup takes over", PATIENCE, || pair.b.has_vip());
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}

#[test]
fn over_ipv6() {
    each_pair("over IPv6", |programs| {
        let change = |role: &mut Role| {
            let v6 = |address: std::net::IpAddr| {
                let number = address.to_string().rsplit_once('.').unwrap().1.to_owned();
                format!("fd77::{number}").parse().unwrap()
            };
            (role.address, role.peer) = (v6(role.address), v6(role.peer));
        };
        let Some(mut pair) = Pair::new(programs, change, |text| text) else { return };
        pair.a.start(&pair.configs[0]);
        wait("the first becomes master", PATIENCE, || pair.a.has_vip());
        pair.b.start(&pair.configs[1]);
        pair.until_calm(true, false);
        let held = pair.a.host.table();
        pair.a.stop();
        wait("the backup takes over", PATIENCE, || pair.b.has_vip());
        wait("it has the same", PATIENCE, || pair.b.host.table() == held);
        pair.a.start(&pair.configs[0]);
        pair.calm(false, true);
    });
}

#[test]
fn another_password_is_another_world() {
    each_pair("password", |programs| {
        let Some(mut pair) = Pair::plain(programs) else { return };
        pair.a.start(&pair.configs[0]);
        wait("the first becomes master", PATIENCE, || pair.a.has_vip());
        pair.b.start(&pair.configs[1].replace("79944cc\n", "another\n"));
        wait("the second becomes master, too", PATIENCE, || pair.b.has_vip());
        pair.calm(true, true);
    });
}

#[test]
fn a_data_plane_that_dies_or_hangs_hands_over_at_once() {
    for mood in [Mood::Dead, Mood::Hung] {
        for peer in [Program::Keepalived, Program::Ours] {
            let Some(pair) = Pair::settled((Program::Ours, peer)) else { return };
            pair.a.data_plane().set(mood);
            let took = wait("the backup takes over", PATIENCE, || pair.b.has_vip() && !pair.a.has_vip());
            println!("data plane {mood:?}, peer {peer:?}: {} ms", took.as_millis());
            assert!(took < SAID_SO, "{took:?}");
            pair.a.data_plane().set(Mood::Fit);
            wait("it is fit again", PATIENCE, || {
                pair.a.control("GET", "/status")["instances"][0]["state"] == "BACKUP"
            });
            pair.calm(false, true);
        }
    }
}

#[test]
fn a_planned_hand_over_leaves_no_gap() {
    for peer in [Program::Keepalived, Program::Ours] {
        let Some(pair) = Pair::settled((Program::Ours, peer)) else { return };
        let status = pair.a.control("POST", "/hand-over");
        assert_eq!(status["instances"][0]["state"], "MASTER", "{status}");
        wait("the VIP is at the peer and not here", PATIENCE, || {
            assert!(pair.a.has_vip() || pair.b.has_vip(), "nobody has the VIP");
            pair.b.has_vip() && !pair.a.has_vip()
        });
        let status = pair.a.control("GET", "/status");
        assert_eq!(status["instances"][0]["reason"], "handed_over", "{status}");
        pair.calm(false, true);
    }
}

#[test]
fn a_crashed_master_that_is_back_in_time_goes_on() {
    let Some(mut pair) = Pair::settled((Program::Ours, Program::Keepalived)) else { return };
    pair.a.kill();
    assert!(pair.a.host.has(VIP));
    pair.a.start(&pair.configs[0]);
    wait("it advertises again", PATIENCE, || {
        assert!(pair.a.host.has(VIP), "what the predecessor left serves on");
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pair.a.control("GET", "/status")["instances"][0]["state"] == "MASTER"
        }))
        .unwrap_or(false)
    });
    pair.calm(true, false);
}
