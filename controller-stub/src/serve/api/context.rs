//! Who asks.

use hyper::{HeaderMap, header::HeaderName};

use super::fault::Fault;
use crate::serve::{config::AuthStrategy, policies::Context};

/// The project of who names none while nobody is asked who it is.
pub(super) const DEFAULT_PROJECT: &str = "default";

/// Who asks, by the head of the request.
///
/// # Errors
/// 401: it is not known.
pub(super) fn of(strategy: AuthStrategy, headers: &HeaderMap) -> Result<Context, Fault> {
    let text = |name: &str| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
    };
    match strategy {
        AuthStrategy::NoAuth => Ok(Context {
            project_id: Some(
                text("x-project-id").or(text("x-tenant-id")).unwrap_or(DEFAULT_PROJECT).to_owned(),
            ),
            user_id: text("x-user-id").map(str::to_owned),
            roles: text("x-roles")
                .unwrap_or_default()
                .split(',')
                .map(|role| role.trim().to_owned())
                .collect(),
            is_admin: true,
        }),
        AuthStrategy::Keystone | AuthStrategy::HttpBasic => {
            Err(Fault::new(401, "The request you have made requires authentication."))
        }
    }
}
