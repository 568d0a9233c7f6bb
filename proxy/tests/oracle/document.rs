//! What operators send: the document of a load balancer, and the update of a member.

use std::sync::Arc;

use amphora_model::{LoadBalancer, MAX_FAULTS, MemberUpdate, Refusal};
use amphora_proxy::{snapshot, state::Registry};

/// A document: what is accepted comes back from its canonical form as it is, and compiles or is refused with faults.
/// Says whether it was accepted.
pub(crate) fn document(data: &[u8]) -> bool {
    let lb = match LoadBalancer::from_json(data) {
        Ok(lb) => lb,
        Err(refusal) => {
            has_faults(&refusal);
            return false;
        }
    };
    let canonical = lb.to_json();
    assert_eq!(LoadBalancer::from_json(canonical.to_string().as_bytes()).as_ref(), Ok(&lb));
    assert_eq!(LoadBalancer::from_value(&canonical).as_ref(), Ok(&lb));
    let lb = Arc::new(lb);
    match snapshot::compile(Arc::clone(&lb), 1, &Registry::new(1), &snapshot::TlsSource::default()) {
        Ok(snapshot) => {
            let bound = if lb.admin_state_up {
                lb.listeners.iter().filter(|listener| listener.admin_state_up).count()
            } else {
                0
            };
            assert_eq!((snapshot.listeners.len(), snapshot.pools.len()), (bound, lb.pools.len()));
        }
        Err(refusal) => assert!(!refusal.faults.is_empty()),
    }
    true
}

/// The update of a member: what is accepted changes something that there is, within its bounds.
pub(crate) fn member_update(data: &[u8]) {
    match MemberUpdate::from_json(data) {
        Ok(update) => {
            assert!(update.weight().is_none_or(|weight| weight <= 256));
            assert!(data.windows(6).any(|window| window == b"member") || data.contains(&b'\\'));
        }
        Err(refusal) => has_faults(&refusal),
    }
}

/// Between one fault and as many as a refusal may list, each with a reason.
fn has_faults(refusal: &Refusal) {
    assert!((1..=MAX_FAULTS + 1).contains(&refusal.faults.len()));
    assert!(refusal.faults.iter().all(|fault| !fault.reason.is_empty()));
}
