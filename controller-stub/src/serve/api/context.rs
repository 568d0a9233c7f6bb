//! Who asks, while nobody is asked who it is.

use hyper::HeaderMap;

use crate::serve::policies::Context;

/// The project of who names none.
const DEFAULT_PROJECT: &str = "default";

/// Who asks, as Octavia's `noauth` has it: who it says that it is, and everything is permitted.
pub(super) fn unasked(headers: &HeaderMap) -> Context {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty());
    Context {
        project_id: Some(text("x-project-id").or(text("x-tenant-id")).unwrap_or(DEFAULT_PROJECT).to_owned()),
        user_id: text("x-user-id").map(str::to_owned),
        roles: text("x-roles").unwrap_or_default().split(',').map(|role| role.trim().to_owned()).collect(),
        is_admin: true,
    }
}
