//! The last look at what a text means: that of the parser of documents, whose faults have paths. Here these are lines.

use amphora_model::LoadBalancer;

use super::{Fault, Translated};

/// The same with the load balancer as its document says it.
pub(super) fn checked(text: &[u8], translated: Translated) -> Result<Translated, Fault> {
    match LoadBalancer::from_value(&translated.load_balancer.to_json()) {
        Ok(load_balancer) => Ok(Translated { load_balancer, ..translated }),
        Err(refusal) => Err(match refusal.faults.first() {
            Some(fault) => translated.lines.told(text, fault, Some(&translated.load_balancer)),
            None => Fault::whole("is refused"),
        }),
    }
}
