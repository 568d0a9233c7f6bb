//! Whether an amphora would take what a change has made.

use amphora_agent::heartbeat::size;
use amphora_model::LoadBalancer;

use super::{fault::Fault, scope::Scope};
use crate::serve::document;

/// The bytes of a document that amphorae take: `max_body_size` of an agent, when nobody has said otherwise.
const MOST: usize = 8 << 20;

/// Refuses what no amphora would take, with its own reason.
pub(super) fn judge(scope: &Scope<'_>, load_balancer: &str) -> Result<(), Fault> {
    let Some(rendered) = document::render_to_judge(scope.t, load_balancer)? else { return Ok(()) };
    let model = LoadBalancer::from_value(&rendered.document).map_err(Fault::validation)?;
    let bytes = rendered.document.to_string().len();
    if bytes > MOST {
        return Err(Fault::validation(format_args!(
            "All of load balancer {load_balancer} has {bytes} bytes, and its amphorae take {MOST}"
        )));
    }
    let too_many = |reason| {
        Fault::validation(format_args!("The pools and members of load balancer {load_balancer} {reason}"))
    };
    size::fits(&model, &[]).map_err(too_many)
}
