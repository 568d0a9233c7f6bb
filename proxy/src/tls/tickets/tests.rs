#![allow(clippy::unwrap_used)]

use super::*;

fn tickets(keys: &Arc<TicketKeys>, scope: u8) -> Tickets {
    Tickets::new(Arc::clone(keys), [scope; 32], LIFETIME)
}

const START: u64 = 1_800_000_000;

#[test]
fn a_ticket_opens_where_it_was_made_for_and_as_long_as_it_lives() {
    let keys = TicketKeys::new();
    let (mine, others) = (tickets(&keys, 1), tickets(&keys, 2));
    let ticket = mine.seal(b"session", START).unwrap();
    assert_eq!(mine.open(&ticket, START).as_deref(), Some(&b"session"[..]));
    assert_eq!(tickets(&keys, 1).open(&ticket, START + LIFETIME - 1).as_deref(), Some(&b"session"[..]));
    assert_eq!(mine.open(&ticket, START + LIFETIME), None);
    assert_eq!(mine.open(&ticket, START - SKEW - 1), None);
    assert_eq!(others.open(&ticket, START), None);
    assert_eq!(tickets(&TicketKeys::new(), 1).open(&ticket, START), None);
    for at in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[at] ^= 1;
        assert_eq!(mine.open(&changed, START), None, "{at}");
        assert_eq!(mine.open(&ticket[..at], START), None, "{at}");
    }
}

#[test]
fn secrets_change_and_the_ones_before_open_still() {
    let keys = TicketKeys::new();
    let mine = tickets(&keys, 1);
    let first = mine.seal(b"1", START).unwrap();
    assert_eq!(first[..NAME_LENGTH], mine.seal(b"2", START + ROTATION - 1).unwrap()[..NAME_LENGTH]);
    let later = mine.seal(b"3", START + ROTATION).unwrap();
    assert_ne!(first[..NAME_LENGTH], later[..NAME_LENGTH]);
    assert_eq!(mine.open(&first, START + ROTATION).as_deref(), Some(&b"1"[..]));
    assert_eq!(keys.export(START + ROTATION).len(), 2);
    // What no ticket can be of any more is forgotten.
    assert_eq!(keys.export(START + 10 * ROTATION).len(), 1);
    // A clock that was set back makes a secret of its own.
    let earlier = mine.seal(b"4", START).unwrap();
    assert_eq!(mine.open(&earlier, START).as_deref(), Some(&b"4"[..]));
}

#[test]
fn the_other_amphora_opens_what_this_one_has_sealed() {
    let (here, there) = (TicketKeys::new(), TicketKeys::new());
    let (mine, theirs) = (tickets(&here, 1), tickets(&there, 1));
    let ticket = mine.seal(b"session", START).unwrap();
    assert_eq!(theirs.open(&ticket, START), None);
    let own = theirs.seal(b"own", START).unwrap();
    let told = here.export(START);
    assert!(there.import(&told, START));
    assert!(!there.import(&told, START));
    assert_eq!(theirs.open(&ticket, START).as_deref(), Some(&b"session"[..]));
    // It goes on with its own.
    assert_eq!(own[..NAME_LENGTH], theirs.seal(b"own", START + 1).unwrap()[..NAME_LENGTH]);
    assert_eq!(there.export(START).len(), 1);
    // Of one that is started anew it is told what was its own before, and nobody is told anything twice.
    let again = TicketKeys::new();
    assert!(again.import(&there.news(&mut None).unwrap(), START));
    assert_eq!(tickets(&again, 1).open(&ticket, START).as_deref(), Some(&b"session"[..]));
    assert!(!there.import(&again.news(&mut None).unwrap(), START));
    // Neither what has expired nor more than there can be is kept.
    let many: Vec<_> = (0..100).filter_map(|at| fresh(START + at)).collect();
    there.import(&many, START + 100);
    assert!(there.ring.lock().unwrap().foreign.len() <= MAX_SECRETS);
    let old = fresh(START - ROTATION - LIFETIME).unwrap();
    there.import(std::slice::from_ref(&old), START);
    assert!(!there.ring.lock().unwrap().all().any(|secret| *secret == old));
    assert!(!format!("{old:?}").contains("secret:"));
}

#[test]
fn threads_share_what_one_has_made() {
    let keys = TicketKeys::new();
    let ticket = tickets(&keys, 1).seal(b"session", START).unwrap();
    let mine = tickets(&keys, 1);
    let opened = std::thread::spawn(move || mine.open(&ticket, START)).join().unwrap();
    assert_eq!(opened.as_deref(), Some(&b"session"[..]));
}
