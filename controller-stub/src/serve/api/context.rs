//! Who asks, while nobody is asked who it is.

use std::net::IpAddr;

use hyper::{
    HeaderMap, Uri,
    header::{ACCEPT_LANGUAGE, HOST, USER_AGENT},
    http::uri::Authority,
};

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

/// Whether a browser was led here by a name that somebody else has made to mean this host (DNS rebinding). Then a page of his could
/// ask what it likes, and to the browser it were its own server.
pub(super) fn is_misled(headers: &HeaderMap, base: Option<&str>) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // Firefox lets a page say what it likes of the agent, but not leave out the language.
    let is_browser = text(USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/"))
        || headers.contains_key(ACCEPT_LANGUAGE)
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
    let Some(host) = text(HOST).filter(|_| is_browser) else { return false };
    let Ok(authority) = host.parse::<Authority>() else { return true };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let own = base.and_then(|base| base.parse::<Uri>().ok());
    let is_own = own.and_then(|own| own.host().map(|own| own.eq_ignore_ascii_case(&name))).unwrap_or(false);
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    !(is_own || is_address || name == "localhost" || name.ends_with(".localhost"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn browsers_come_by_names_that_nobody_else_has_made() {
        let asks = |agent: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().unwrap());
            headers.insert(HOST, host.parse().unwrap());
            is_misled(&headers, Some("https://lb.example.com/x"))
        };
        let browser = "Mozilla/5.0 (X11; Linux x86_64)";
        for host in [
            "127.0.0.1:9876",
            "[::1]:9876",
            "localhost",
            "LocalHost.:9876",
            "a.localhost:1",
            "LB.example.com",
        ] {
            assert!(!asks(browser, host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9876", "127.0.0.1.evil.example", "localhost.evil.example", "a@b@c"]
        {
            assert!(asks(browser, host), "{host}");
            assert!(!asks("openstacksdk/4.7", host), "{host}: no browser");
        }
        for (name, value) in [("accept-language", ""), ("sec-fetch-site", "same-origin")] {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, "curl/8".parse().unwrap());
            headers.insert(HOST, "evil.example".parse().unwrap());
            headers.insert(name, value.parse().unwrap());
            assert!(is_misled(&headers, None), "{name}: a page of a browser says that it is curl");
        }
    }
}
