use super::*;

fn seen(
    id: &str,
    made: i64,
    status: AmphoraStatus,
    liveness: impl Into<Option<Liveness>>,
    applied: i64,
) -> Seen {
    let liveness = liveness.into();
    Seen { id: id.to_owned(), made, status, role: None, applied, leaving: false, liveness, master: None }
}

fn serving(id: &str, made: i64) -> Seen {
    seen(id, made, AmphoraStatus::Allocated, Liveness::Running, 7)
}

fn view(topology: Topology, amphorae: Vec<Seen>) -> View {
    View {
        topology,
        going: false,
        generation: 7,
        replace_before: None,
        attempts: 0,
        untold: false,
        idle_ports: false,
        amphorae,
    }
}

fn of(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn a_single_one_is_made_step_by_step() {
    use AmphoraStatus::{Allocated, Booting};
    let step = |amphorae| view(Topology::Single, amphorae).next();
    assert_eq!(step(vec![]), Step::Add(1));
    assert_eq!(step(vec![seen("a", 1, Booting, Liveness::Absent, 0)]), Step::Boot(of(&["a"])));
    assert_eq!(step(vec![seen("a", 1, Booting, Liveness::Running, 0)]), Step::Boot(of(&["a"])));
    assert_eq!(step(vec![seen("a", 1, Booting, Liveness::Dead, 0)]), Step::Retire(of(&["a"])));
    assert_eq!(step(vec![seen("a", 1, Allocated, Liveness::Running, 0)]), Step::Apply(of(&["a"])));
    assert_eq!(step(vec![seen("a", 1, Allocated, Liveness::Running, 6)]), Step::Apply(of(&["a"])));
    assert_eq!(step(vec![serving("a", 1)]), Step::Finish);
    assert_eq!(step(vec![seen("a", 1, Allocated, Liveness::Absent, 7)]), Step::Retire(of(&["a"])));
}

#[test]
fn ports_that_nobody_needs_go_last() {
    let mut single =
        view(Topology::Single, vec![seen("a", 1, AmphoraStatus::Allocated, Liveness::Running, 6)]);
    single.idle_ports = true;
    assert_eq!(single.next(), Step::Apply(of(&["a"])));
    single.amphorae[0].applied = 7;
    assert_eq!(single.next(), Step::Unplug);
    single.idle_ports = false;
    assert_eq!(single.next(), Step::Finish);
}

#[test]
fn what_was_lost_goes_before_there_is_another() {
    let retired = seen("a", 1, AmphoraStatus::PendingDelete, Liveness::Running, 7);
    let mut lost = view(Topology::ActiveStandby, vec![retired, serving("b", 1)]);
    assert_eq!(lost.next(), Step::Remove(of(&["a"])));
    lost.amphorae.remove(0);
    assert_eq!(lost.next(), Step::Add(1));
}

#[test]
fn a_load_balancer_goes_after_its_amphorae() {
    let mut going = view(Topology::ActiveStandby, vec![serving("a", 1), serving("b", 1)]);
    going.going = true;
    assert_eq!(going.next(), Step::Retire(of(&["a", "b"])));
    going.amphorae.iter_mut().for_each(|one| one.status = AmphoraStatus::PendingDelete);
    assert_eq!(going.next(), Step::Remove(of(&["a", "b"])));
    going.amphorae.clear();
    assert_eq!(going.next(), Step::Delete);
}

#[test]
fn of_a_pair_that_is_replaced_the_backup_goes_first_and_the_master_hands_over() {
    let mut pair = view(Topology::ActiveStandby, vec![serving("a", 1), serving("b", 1)]);
    (pair.amphorae[0].master, pair.amphorae[1].master) = (Some(true), Some(false));
    pair.replace_before = Some(5);
    assert_eq!(pair.next(), Step::Add(2), "both boot at once");
    let booting = |id: &str| seen(id, 6, AmphoraStatus::Booting, Liveness::Absent, 0);
    pair.amphorae.extend([booting("c"), booting("d")]);
    assert_eq!(pair.next(), Step::Boot(of(&["c", "d"])));
    for new in &mut pair.amphorae[2..] {
        (new.status, new.liveness) = (AmphoraStatus::Allocated, Some(Liveness::Running));
    }
    assert!(pair.wants_masters());
    assert_eq!(pair.next(), Step::Retire(of(&["b"])));
    pair.amphorae.remove(1);
    assert_eq!(pair.next(), Step::Apply(of(&["a", "c"])));
    pair.amphorae[1].applied = 7;
    assert_eq!(pair.next(), Step::HandOver { from: "a".to_owned(), to: "c".to_owned() });
    let unanswered = View { attempts: 2, ..pair.clone() };
    assert_eq!(unanswered.next(), Step::Retire(of(&["a"])));
    for gone in [Some(false), None] {
        pair.amphorae[0].master = gone;
        assert_eq!(pair.next(), Step::Retire(of(&["a"])), "{gone:?}");
    }
    pair.amphorae.remove(0);
    assert_eq!(pair.next(), Step::Apply(of(&["d"])));
    pair.amphorae[1].applied = 7;
    assert_eq!(pair.next(), Step::Finish);
}

#[test]
fn a_hand_over_does_not_wait_until_nobody_changes_anything() {
    let mut pair = view(Topology::ActiveStandby, vec![serving("a", 1), serving("c", 6), serving("d", 6)]);
    pair.replace_before = Some(5);
    pair.amphorae[0].master = Some(true);
    let mut step = |[old, new]: [i64; 2]| {
        (pair.amphorae[0].applied, pair.amphorae[1].applied) = (old, new);
        pair.amphorae[2].applied = 0;
        View { generation: 9, ..pair.clone() }.next()
    };
    let (hand_over, apply) =
        (Step::HandOver { from: "a".to_owned(), to: "c".to_owned() }, Step::Apply(of(&["a", "c"])));
    assert_eq!(step([8, 8]), hand_over, "a change came while both were told of the one before");
    assert_eq!(step([7, 8]), hand_over);
    assert_eq!(step([8, 7]), apply, "it would take a change back");
    assert_eq!(step([0, 8]), apply, "it has to be told whom it hands over to");
}

#[test]
fn the_replacement_of_a_single_one_is_there_before_it_goes() {
    let mut single = view(Topology::Single, vec![serving("a", 1)]);
    single.amphorae[0].leaving = true;
    assert_eq!(single.next(), Step::Add(1));
    single.amphorae.push(seen("b", 2, AmphoraStatus::Allocated, Liveness::Running, 0));
    assert_eq!(single.next(), Step::Retire(of(&["a"])));
    single.amphorae.remove(0);
    assert_eq!(single.next(), Step::Apply(of(&["b"])));
}

#[test]
fn where_there_is_no_room_for_all_one_is_replaced_after_the_other() {
    let mut pair = view(Topology::ActiveStandby, vec![serving("a", 1), serving("b", 1)]);
    (pair.amphorae[0].master, pair.amphorae[1].master) = (Some(true), Some(false));
    (pair.replace_before, pair.attempts) = (Some(5), 1);
    assert_eq!(pair.next(), Step::Add(1));
    pair.amphorae.push(seen("c", 6, AmphoraStatus::Allocated, Liveness::Running, 0));
    assert!(pair.wants_masters());
    assert_eq!(pair.next(), Step::Retire(of(&["b"])));
    pair.amphorae.remove(1);
    assert_eq!(pair.next(), Step::Add(1));
}

#[test]
fn what_cannot_be_made_does_not_keep_what_serves_from_a_change() {
    let lagging = || Seen { applied: 0, role: Some(Role::Master), ..serving("a", 1) };
    let mut pair = view(Topology::ActiveStandby, vec![lagging()]);
    assert_eq!(pair.next(), Step::Add(1));
    for attempts in [1, 2] {
        pair.attempts = attempts;
        assert_eq!(pair.next(), Step::KeepUp(of(&["a"])));
        // Nor does what it does not take keep from it the other one.
        assert_eq!(View { untold: true, ..pair.clone() }.next(), Step::Add(1));
    }
    // It may be one that does not answer.
    let mut single = view(Topology::Single, vec![Seen { leaving: true, ..lagging() }]);
    for (attempts, step) in [(0, Step::Add(1)), (1, Step::KeepUp(of(&["a"]))), (2, Step::Add(1))] {
        single.attempts = attempts;
        assert_eq!(single.next(), step);
    }
    // Of one that was never told anything nobody expects it before the other.
    let new = seen("b", 2, AmphoraStatus::Allocated, Liveness::Running, 0);
    let pair = View { attempts: 1, ..view(Topology::ActiveStandby, vec![new]) };
    assert_eq!(pair.next(), Step::Add(1));
}

#[test]
fn no_two_of_a_pair_have_one_role() {
    use Role::{Backup, Master, Standalone};
    assert_eq!(roles(Topology::Single, &[Some(Master)]), [Standalone]);
    assert_eq!(roles(Topology::ActiveStandby, &[None, None]), [Master, Backup]);
    assert_eq!(roles(Topology::ActiveStandby, &[Some(Backup), None]), [Backup, Master]);
    assert_eq!(roles(Topology::ActiveStandby, &[Some(Master), Some(Master)]), [Master, Backup]);
}

#[test]
fn nobody_goes_for_what_could_not_be_found_out() {
    let unknown = |id: &str, status, applied| seen(id, 1, status, None, applied);
    let step = |amphorae| view(Topology::Single, amphorae).next();
    assert_eq!(step(vec![unknown("a", AmphoraStatus::Allocated, 7)]), Step::Finish);
    assert_eq!(step(vec![unknown("a", AmphoraStatus::Allocated, 6)]), Step::Apply(of(&["a"])));
    assert_eq!(step(vec![unknown("a", AmphoraStatus::Booting, 0)]), Step::Boot(of(&["a"])));
    let mut going = view(Topology::Single, vec![unknown("a", AmphoraStatus::Allocated, 7)]);
    going.going = true;
    assert_eq!(going.next(), Step::Retire(of(&["a"])), "who deletes it does not wait");
}
