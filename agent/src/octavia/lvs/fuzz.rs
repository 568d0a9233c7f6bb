//! Any text, for fuzzing.

use super::translate;

/// Reads anything: what is accepted is a load balancer that comes back from its document; what is not has a reason, and a line of the text.
///
/// # Panics
/// When it is not so.
pub fn fuzz(data: &[u8]) {
    match translate(data) {
        Ok(translated) => {
            if let Some(served) = translated.served {
                assert!(translated.enabled && served.listeners.len() == 1);
                let again = amphora_model::LoadBalancer::from_value(&served.to_json());
                assert_eq!(again.as_ref(), Ok(&served));
            }
        }
        Err(fault) => {
            assert!(!fault.reason.is_empty());
            assert!(fault.line <= data.split(|b| *b == b'\n').count());
            assert!(!fault.to_string().contains(char::is_control));
        }
    }
}
