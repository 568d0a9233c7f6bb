#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use amphora_model::{LbAlgorithm, Member, PoolProtocol};
use uuid::Uuid;

use super::*;

struct View(Vec<bool>);

impl MembersView for View {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn id(&self, i: usize) -> MemberId {
        id(i)
    }
    fn weight(&self, _: usize) -> u16 {
        1
    }
    fn backup(&self, _: usize) -> bool {
        false
    }
    fn usable(&self, i: usize) -> bool {
        self.0[i]
    }
    fn load(&self, _: usize) -> u32 {
        0
    }
    fn epoch(&self) -> u64 {
        0
    }
}

fn id(i: usize) -> MemberId {
    MemberId(Uuid::from_u128(i as u128 + 1))
}

fn pool(persistence: SessionPersistence, members: &[usize]) -> Pool {
    let member = |&i: &usize| Member {
        id: id(i),
        name: String::new(),
        admin_state_up: true,
        address: Ipv4Addr::LOCALHOST.into(),
        port: 80,
        weight: 1,
        backup: false,
        monitor_address: None,
        monitor_port: None,
    };
    Pool {
        id: PoolId(Uuid::from_u128(77)),
        name: String::new(),
        admin_state_up: true,
        protocol: PoolProtocol::Http,
        lb_algorithm: LbAlgorithm::RoundRobin,
        tls: None,
        session_persistence: Some(persistence),
        health_monitor: None,
        member_options: Default::default(),
        members: members.iter().map(member).collect(),
    }
}

fn next(
    previous: Option<Arc<PersistState>>,
    persistence: SessionPersistence,
    members: &[usize],
) -> (Option<Arc<PersistState>>, Stick) {
    let pool = pool(persistence, members);
    let state = PersistState::carry_over(previous, pool.id, pool.session_persistence.as_ref());
    let persistence = Persistence::compile(&pool, state.as_ref()).unwrap();
    persistence.adopt();
    let stick = match persistence {
        Persistence::Source(stick) | Persistence::AppCookie { stick, .. } | Persistence::Network(stick) => {
            stick
        }
        Persistence::ServerCookie(_) => panic!("no table"),
    };
    (state, stick)
}

fn app_cookie(name: &str) -> SessionPersistence {
    SessionPersistence::AppCookie { cookie_name: name.into() }
}

#[test]
fn clients_keep_their_member_across_changes() {
    let (state, stick) = next(None, SessionPersistence::SourceIp, &[0, 1, 2]);
    let up = View(vec![true; 3]);
    let key = |i: u8| stick.state().source_key(Ipv4Addr::new(10, 0, 0, i).into());
    stick.store(key(1), 1, 0);
    stick.store(key(2), 2, 0);
    assert_eq!(stick.find(key(1), &up, 0), Some(1));
    assert_eq!(stick.find(key(9), &up, 0), None);

    // Member 0 leaves, 5 comes, the order turns.
    let (state, stick) = next(state, SessionPersistence::SourceIp, &[5, 2, 1]);
    assert_eq!((stick.find(key(1), &up, 0), stick.find(key(2), &up, 0)), (Some(2), Some(1)));
    // Member 2 leaves, and what comes after it does not inherit its clients.
    let (state, stick) = next(state, SessionPersistence::SourceIp, &[1, 6]);
    assert_eq!((stick.find(key(1), &up, 0), stick.find(key(2), &up, 0)), (Some(0), None));
    // It is back.
    let (state, stick) = next(state, SessionPersistence::SourceIp, &[6, 1, 2]);
    assert_eq!(stick.find(key(2), &up, 0), Some(2));
    let state = state.unwrap();
    let mut known: Vec<_> =
        state.table().iter().map(|(_, handle, _)| state.member(handle).unwrap()).collect();
    known.sort_unstable();
    assert_eq!(known, [id(1), id(2)]);
}

#[test]
fn members_that_left_are_forgotten_in_time() {
    let (mut state, _) = next(None, SessionPersistence::SourceIp, &[0]);
    for i in 1..2000 {
        state = next(state, SessionPersistence::SourceIp, &[i]).0;
    }
    assert!(state.unwrap().roster().handles.len() <= FORMER_MEMBERS + 2);
}

/// Twice the members and 256 more are known, and one more makes all that left forgotten.
#[test]
fn former_members_are_known_up_to_a_number_of_them() {
    let known = |state: &Option<Arc<PersistState>>, i| state.as_ref().unwrap().handle(id(i)).is_some();
    let (mut state, _) = next(None, SessionPersistence::SourceIp, &[0, 1, 2]);
    for i in 3..=261 {
        state = next(state, SessionPersistence::SourceIp, &[0, 1, i]).0;
    }
    assert_eq!(state.as_ref().unwrap().roster().handles.len(), 2 * 3 + 256);
    assert!(known(&state, 2) && known(&state, 3) && known(&state, 261));
    let before = state.as_ref().unwrap().handle(id(1));
    let (state, _) = next(state, SessionPersistence::SourceIp, &[0, 1, 262]);
    let roster = state.as_ref().unwrap().roster();
    assert_eq!((roster.handles.len(), roster.members.len()), (3, 3));
    assert_eq!(state.as_ref().unwrap().handle(id(1)), before);
    assert!(known(&state, 0) && known(&state, 262) && !known(&state, 2) && !known(&state, 261));

    // A pool that shrinks forgets at once when what left is too much.
    let members: Vec<usize> = (0..270).collect();
    for (stay, known) in [(7, 270), (6, 6)] {
        let (state, _) = next(None, SessionPersistence::SourceIp, &members);
        let (state, _) = next(state, SessionPersistence::SourceIp, &members[..stay]);
        assert_eq!(state.unwrap().roster().handles.len(), known, "{stay}");
    }
}

#[test]
fn no_handle_is_given_twice() {
    let (state, _) = next(None, SessionPersistence::SourceIp, &[0, 1]);
    let state = next(state, SessionPersistence::SourceIp, &[1, 2, 3]).0.unwrap();
    assert_eq!([0, 1, 2, 3].map(|i| state.handle(id(i)).unwrap().0), [1, 2, 3, 4]);
    assert_eq!([1, 2, 3, 4, 5].map(|n| state.member(MemberHandle(n))), {
        let of = |i| Some(id(i));
        [of(0), of(1), of(2), of(3), None]
    });
}

#[test]
fn a_table_is_as_large_as_octavias_and_its_clock_has_a_past() {
    let (state, stick) = next(None, SessionPersistence::SourceIp, &[0]);
    assert_eq!((STICK_SIZE, state.unwrap().table().bytes()), (10_240, 320 * 1024));
    assert_eq!([table_time(0), table_time(7), table_time(u32::MAX)], [0x8000_0000, 0x8000_0007, u32::MAX]);
    let key = stick.state().source_key(Ipv4Addr::LOCALHOST.into());
    stick.store(key, 0, 7);
    assert_eq!(stick.state().table().iter().next(), Some((key, MemberHandle(1), 0x8000_0007)));
    stick.find(key, &View(vec![true]), 9);
    assert_eq!(stick.state().table().iter().next(), Some((key, MemberHandle(1), 0x8000_0009)));
}

#[test]
fn compiling_what_never_goes_live_changes_no_handle() {
    let members: Vec<usize> = (0..400).collect();
    let (state, stick) = next(None, SessionPersistence::SourceIp, &members);
    let key = |i: u16| stick.state().source_key(Ipv4Addr::new(10, 0, (i >> 8) as u8, i as u8).into());
    (0..400).for_each(|i| stick.store(key(i), usize::from(i), 0));
    let refused = pool(SessionPersistence::SourceIp, &[999]);
    Persistence::compile(&refused, state.as_ref()).unwrap();
    assert_eq!(stick.state().handle(id(999)), None);
    let (_, stick) = next(state, SessionPersistence::SourceIp, &members);
    let up = View(vec![true; 400]);
    let kept = (0..400).filter(|&i| stick.find(key(i), &up, 1) == Some(usize::from(i))).count();
    assert_eq!(kept, 400);
}

#[test]
fn a_member_that_is_down_is_not_used_until_it_is_back() {
    let (_, stick) = next(None, SessionPersistence::SourceIp, &[0, 1]);
    let key = stick.state().source_key(Ipv4Addr::new(10, 0, 0, 1).into());
    stick.store(key, 1, 0);
    assert_eq!(stick.find(key, &View(vec![true, false]), 1), None);
    assert_eq!(stick.find(key, &View(vec![true, true]), 1), Some(1));
    stick.store(key, 0, 2);
    assert_eq!(stick.find(key, &View(vec![true, true]), 3), Some(0), "overwritten");
}

#[test]
fn another_kind_of_persistence_starts_afresh() {
    let (state, stick) = next(None, app_cookie("JS"), &[0]);
    let key = stick.state().cookie_key(b"abc");
    stick.store(key, 0, 0);
    let up = View(vec![true]);
    let (state, stick) = next(state, app_cookie("JS"), &[0]);
    assert_eq!(stick.find(key, &up, 0), Some(0));
    let (state, stick) = next(state, app_cookie("PHP"), &[0]);
    assert_eq!(stick.find(key, &up, 0), None);
    assert!(PersistState::carry_over(state, PoolId(Uuid::nil()), None).is_none());
    let srv = Some(&SessionPersistence::HttpCookie);
    assert!(PersistState::carry_over(None, PoolId(Uuid::nil()), srv).is_none());
}

#[test]
fn keys_depend_on_the_pool_and_64_bytes_of_the_value() {
    let a = PersistState::new(PoolId(Uuid::from_u128(1)), app_cookie("JS"));
    let same = PersistState::new(PoolId(Uuid::from_u128(1)), app_cookie("JS"));
    let b = PersistState::new(PoolId(Uuid::from_u128(2)), app_cookie("JS"));
    let long = [b'x'; 70];
    assert_eq!(a.cookie_key(&long), same.cookie_key(&long[..64]));
    assert_ne!(a.cookie_key(&long), a.cookie_key(&long[..63]));
    assert_ne!(a.cookie_key(b"v"), b.cookie_key(b"v"));
    let v4 = Ipv4Addr::new(192, 0, 2, 1);
    assert_eq!(a.source_key(v4.into()), a.source_key(v4.to_ipv6_mapped().into()));
}
