//! Any text, for fuzzing.

use super::{Context, Everything, translate};

/// Reads anything: what is accepted is a load balancer that comes back from its document; what is not has a reason, and a line of the text.
///
/// # Panics
/// When it is not so.
pub fn fuzz(data: &[u8]) {
    let context = Context { certificates: &Everything, vips: &[] };
    match translate(data, &context) {
        Ok(translated) => {
            let document = translated.load_balancer.to_json();
            let again = amphora_model::LoadBalancer::from_value(&document);
            assert_eq!(again.as_ref(), Ok(&translated.load_balancer));
        }
        Err(fault) => {
            assert!(!fault.reason.is_empty());
            assert!(fault.line <= data.split(|b| *b == b'\n').count());
            assert!(!fault.to_string().contains(char::is_control));
        }
    }
}
