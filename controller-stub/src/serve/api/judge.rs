//! Whether an amphora would take what a change has made.

use amphora_model::LoadBalancer;

use super::{fault::Fault, scope::Scope};
use crate::serve::document;

/// Refuses what no amphora would take, with its own reason.
pub(super) fn judge(scope: &Scope<'_>, load_balancer: &str) -> Result<(), Fault> {
    let Some(rendered) = document::render(scope.t, load_balancer)? else { return Ok(()) };
    LoadBalancer::from_value(&rendered.document).map(drop).map_err(Fault::validation)
}
