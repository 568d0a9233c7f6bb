//! `l7policy` and `rule`.

use super::{
    Context, check,
    object::{COMMON, MAX_NAME, Object},
    routing::{self, OfPolicy},
};
use crate::{
    CompareType, Edits, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, ListenerId,
    ListenerProtocol, RedirectCode, WeightedPools,
};

/// Octavia's `MAX_L7RULES_PER_L7POLICY`.
const MAX_RULES: usize = 50;

/// Octavia's `MAX_POLICY_POSITION`, which is also the default: after every other policy.
const LAST_POSITION: u32 = i32::MAX as u32;

/// The fields of which each action has its own.
const REDIRECT_FIELDS: &[&str] =
    &["redirect_url", "redirect_prefix", "redirect_pool", "redirect_pool_id", "redirect_http_code"];

/// Reads `l7policies` in the order in which they are tried: by `position`, then by their order in the document. As in
/// Octavia positions are then counted through from 1.
pub(super) fn l7policies(
    o: &mut Object<'_>,
    cx: &mut Context,
    listener: Option<ListenerId>,
    protocol: Option<ListenerProtocol>,
) -> Vec<L7Policy> {
    let mut policies = o.objects("l7policies", |o| l7policy(o, cx, listener, protocol));
    policies.sort_by_key(|policy| policy.position);
    for (position, policy) in (1..).zip(&mut policies) {
        policy.position = position;
    }
    policies
}

fn l7policy(
    o: &mut Object<'_>,
    cx: &mut Context,
    listener: Option<ListenerId>,
    protocol: Option<ListenerProtocol>,
) -> Option<L7Policy> {
    let id = o.id::<L7PolicyId>();
    if let Some(id) = id
        && !cx.policies.insert(id)
    {
        o.fault("id", "is the id of another L7 policy");
    }
    let name = o.name();
    let admin_state_up = o.flag("admin_state_up", true);
    let position = o.integer("position", 1..=LAST_POSITION).unwrap_or(LAST_POSITION);
    let done = l7action(o, cx, protocol);
    let rules = o.objects("rules", |o| l7rule(o, cx));
    if rules.len() > MAX_RULES {
        o.fault("rules", format!("must not be more than {MAX_RULES}"));
    }
    o.parent("listener_id", listener);
    o.metadata(COMMON);
    let (action, edits) = done?;
    Some(L7Policy { id: id?, name, admin_state_up, position, action, edits, rules })
}

/// The action, and edits beside it.
fn l7action(
    o: &mut Object<'_>,
    cx: &Context,
    protocol: Option<ListenerProtocol>,
) -> Option<(L7Action, Option<Box<Edits>>)> {
    const ACTIONS: &[&str] = &["REJECT", "REDIRECT_TO_URL", "REDIRECT_PREFIX", "REDIRECT_TO_POOL"];
    let OfPolicy { action: own, is_no_action, pools, edits, answer } = routing::of_policy(o, cx, protocol);
    if let Some(own) = own {
        for name in REDIRECT_FIELDS.iter().chain(&["action"]) {
            if o.given(name).is_some() {
                o.fault(name, format!("has no meaning with amphora.action {own}"));
            }
        }
        return match own {
            "EDIT" => Some((L7Action::Edit, Some(Box::new(edits?)))),
            _ => Some((L7Action::Answer(Box::new(answer?)), None)),
        };
    }
    if is_no_action && o.given("action").is_none() {
        return None;
    }
    let action = o.require("action", |o, name| o.one_of(name, ACTIONS));
    if let Some(action) = action.filter(|action| *action != "REDIRECT_TO_POOL") {
        for (name, given) in [("redirect_pools", pools.is_some()), ("edits", edits.is_some())] {
            if given {
                o.fault("amphora", format!("has {name}, which have no meaning with action {action}"));
            }
        }
    }
    let action = octavias_action(o, cx, protocol, action, pools)?;
    Some((action, edits.map(Box::new)))
}

/// The action of one of Octavia's.
fn octavias_action(
    o: &mut Object<'_>,
    cx: &Context,
    protocol: Option<ListenerProtocol>,
    action: Option<&'static str>,
    pools: Option<WeightedPools>,
) -> Option<L7Action> {
    let own: &[&str] = match action {
        Some("REJECT") => &[],
        Some("REDIRECT_TO_URL") => &["redirect_url", "redirect_http_code"],
        Some("REDIRECT_PREFIX") => &["redirect_prefix", "redirect_http_code"],
        Some(_) => &["redirect_pool", "redirect_pool_id"],
        None => REDIRECT_FIELDS,
    };
    for name in REDIRECT_FIELDS.iter().filter(|name| !own.contains(name)) {
        if o.given(name).is_some() {
            o.fault(name, format!("has no meaning with action {}", action.unwrap_or_default()));
        }
    }
    match action? {
        "REJECT" => Some(L7Action::Reject),
        "REDIRECT_TO_URL" => {
            let (url, code) = (redirect_url(o, "redirect_url"), redirect_code(o));
            Some(L7Action::RedirectToUrl { url: url?, code })
        }
        "REDIRECT_PREFIX" => {
            let (prefix, code) = (redirect_url(o, "redirect_prefix"), redirect_code(o));
            Some(L7Action::RedirectPrefix { prefix: prefix?, code })
        }
        _ if let Some(pools) = pools => {
            for name in ["redirect_pool", "redirect_pool_id"] {
                if o.given(name).is_some() {
                    o.fault(name, "cannot be combined with amphora.redirect_pools");
                }
            }
            Some(L7Action::RedirectToPools(pools))
        }
        _ => {
            if o.get("redirect_pool").is_none() && o.given("redirect_pool_id").is_none() {
                return o.missing("redirect_pool_id");
            }
            super::pool_reference(o, cx, "redirect_pool", "redirect_pool_id", protocol)
                .map(L7Action::RedirectToPool)
        }
    }
}

fn redirect_url(o: &mut Object<'_>, name: &'static str) -> Option<String> {
    let url = o.require(name, |o, name| o.text(name, MAX_NAME))?;
    check::url(url).map_err(|reason| o.fault(name, reason)).ok()?;
    Some(url.to_owned())
}

fn redirect_code(o: &mut Object<'_>) -> RedirectCode {
    let Some(value) = o.get("redirect_http_code") else {
        return RedirectCode::default();
    };
    let code = value.as_u64().and_then(|code| u16::try_from(code).ok()).and_then(RedirectCode::from_code);
    if code.is_none() {
        o.fault("redirect_http_code", "must be one of 301, 302, 303, 307, 308");
    }
    code.unwrap_or_default()
}

fn l7rule(o: &mut Object<'_>, cx: &mut Context) -> Option<L7Rule> {
    const TYPES: &[&str] = &[
        "HOST_NAME",
        "PATH",
        "FILE_TYPE",
        "HEADER",
        "COOKIE",
        "SSL_CONN_HAS_CERT",
        "SSL_VERIFY_RESULT",
        "SSL_DN_FIELD",
    ];
    let id = o.id::<L7RuleId>();
    if let Some(id) = id
        && !cx.rules.insert(id)
    {
        o.fault("id", "is the id of another rule");
    }
    let admin_state_up = o.flag("admin_state_up", true);
    let invert = o.flag("invert", false);
    let kind = o.require("type", |o, name| o.one_of(name, TYPES));
    let compare = o.require("compare_type", Object::choice::<CompareType>);
    let subject = l7subject(o, kind);
    let value = if o.has("value") { o.text("value", MAX_NAME) } else { o.missing("value") };
    o.metadata(COMMON);
    let (kind, compare, value) = (kind?, compare?, value?);
    if kind == "FILE_TYPE" && !matches!(compare, CompareType::Regex | CompareType::EqualTo) {
        o.fault("compare_type", format!("must be one of REGEX, EQUAL_TO with type FILE_TYPE; not {compare}"));
    }
    if matches!(kind, "SSL_CONN_HAS_CERT" | "SSL_VERIFY_RESULT") && compare != CompareType::EqualTo {
        o.fault("compare_type", format!("must be EQUAL_TO with type {kind}; not {compare}"));
        return None;
    }
    let checked = match (kind, compare) {
        _ if value.is_empty() => Err("must not be empty".to_owned()),
        // Whether it compiles is found out when it is compiled.
        (_, CompareType::Regex) if value.contains(['\r', '\n']) => {
            Err("must not contain line breaks".to_owned())
        }
        (_, CompareType::Regex) => Ok(()),
        ("COOKIE", _) => check::cookie_value(value),
        ("SSL_CONN_HAS_CERT", _) if value.eq_ignore_ascii_case("true") => Ok(()),
        ("SSL_CONN_HAS_CERT", _) => Err("must be \"True\" with type SSL_CONN_HAS_CERT".to_owned()),
        ("SSL_VERIFY_RESULT", _) => check::verify_result(value),
        // Names have spaces and letters beyond ASCII in them.
        ("SSL_DN_FIELD", _) if value.chars().any(char::is_control) => {
            Err("must not contain control characters".to_owned())
        }
        ("SSL_DN_FIELD", _) => Ok(()),
        _ => check::header_value(value),
    };
    if let Err(reason) = checked {
        o.fault("value", reason);
    }
    Some(L7Rule { id: id?, admin_state_up, invert, subject: subject?, compare, value: value.to_owned() })
}

fn l7subject(o: &mut Object<'_>, kind: Option<&str>) -> Option<L7Subject> {
    let key = o.text("key", MAX_NAME).filter(|key| !key.is_empty());
    let keyed = matches!(kind, Some("HEADER" | "COOKIE" | "SSL_DN_FIELD"));
    match key {
        None if keyed => return o.missing("key"),
        Some(_) if kind.is_some() && !keyed => {
            o.fault("key", "is only for types HEADER, COOKIE and SSL_DN_FIELD");
            return None;
        }
        Some(key) if kind == Some("SSL_DN_FIELD") => {
            check::dn_field(key).map_err(|reason| o.fault("key", reason)).ok()?;
        }
        Some(key) => check::token(key).map_err(|reason| o.fault("key", reason)).ok()?,
        None => {}
    }
    let key = key.unwrap_or_default().to_owned();
    Some(match kind? {
        "HOST_NAME" => L7Subject::HostName,
        "PATH" => L7Subject::Path,
        "FILE_TYPE" => L7Subject::FileType,
        "HEADER" => L7Subject::Header(key),
        "COOKIE" => L7Subject::Cookie(key),
        "SSL_CONN_HAS_CERT" => L7Subject::SslConnHasCert,
        "SSL_VERIFY_RESULT" => L7Subject::SslVerifyResult,
        _ => L7Subject::SslDnField(key),
    })
}
