//! `edits` and `answer`, of an L7 policy's `amphora` object.

use serde_json::{Value, json};

use super::{
    check,
    object::{MAX_NAME, Object},
};
use crate::{Answer, Edits, FieldEdit, FieldOp, PathEdit, Template, Variable, replacement_pieces};

/// What belongs to the framing of messages, or to one connection, and so to the proxy.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How the schemes begin whose credentials are a connection's, which members may serve to others then.
const OF_CONNECTION: &[&str] = &["nego", "ntlm", "kerberos", "credssp"];

/// The longest path, prefix, expression or host.
const MAX_TEXT: usize = 1024;

/// Where a value stands, which decides what it may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Request,
    Response,
}

/// The name of a field that may be set.
pub(super) fn field_name<'a>(o: &mut Object<'a>, name: &'static str) -> Option<&'a str> {
    field_name_or(o, name, "")
}

/// The same; `of_host` says what there is in place of `Host`.
fn field_name_or<'a>(o: &mut Object<'a>, name: &'static str, of_host: &str) -> Option<&'a str> {
    let field = o.require(name, |o, name| o.text(name, MAX_NAME))?;
    let checked = match field {
        _ if RESERVED.iter().any(|reserved| field.eq_ignore_ascii_case(reserved)) => {
            let more = if field.eq_ignore_ascii_case("host") { of_host } else { "" };
            Err(format!(
                "is the name of a field that is the proxy's: of the framing, or of one connection{more}"
            ))
        }
        _ => check::token(field),
    };
    checked.map_err(|reason| o.fault(name, reason)).ok()?;
    Some(field)
}

/// Reads `edits`.
pub(super) fn edits(o: &mut Object<'_>) -> Option<Edits> {
    o.object("edits", |o| {
        let request = field_edits(o, "request", Of::Request);
        let response = field_edits(o, "response", Of::Response);
        let path = o.object("path", path_edit);
        let host = o.text("host", MAX_NAME);
        if let Some(host) = host {
            check::host(host).unwrap_or_else(|reason| o.fault("host", reason));
        }
        let edits = Edits { request, response, path, host: host.map(str::to_owned) };
        if edits.is_empty() && !["request", "response", "path", "host"].iter().any(|name| o.has(name)) {
            o.own_fault("must have one of request, response, path, host");
        }
        Some(edits)
    })
}

fn field_edits(o: &mut Object<'_>, name: &'static str, of: Of) -> Vec<FieldEdit> {
    let edits = o.objects(name, |o| {
        const OPS: &[&str] = &["SET", "ADD", "REMOVE"];
        let op = o.require("op", |o, name| o.one_of(name, OPS));
        let of_host = if of == Of::Request { "; edits.host names another host" } else { "" };
        let name = field_name_or(o, "name", of_host);
        if op == Some("REMOVE") {
            if o.get("value").is_some() {
                o.fault("value", "has no meaning with op REMOVE");
            }
            return Some(FieldEdit { name: name?.to_owned(), op: FieldOp::Remove });
        }
        if op.is_none() {
            o.get("value");
            return None;
        }
        let value = template(o, of);
        let (op, name, value) = (op?, name?, value?);
        let credentials = ["authorization", "proxy-authorization"];
        if credentials.iter().any(|credentials| name.eq_ignore_ascii_case(credentials)) {
            let schemes = value.to_string().to_ascii_lowercase();
            let mut schemes = schemes.split(',').map(|part| part.trim_start_matches([' ', '\t', '"']));
            if schemes.any(|part| OF_CONNECTION.iter().any(|scheme| part.starts_with(scheme))) {
                o.fault(
                    "value",
                    "has credentials that are a connection's, and members' connections serve many clients",
                );
            }
            if value.variables().next().is_some() {
                o.fault("value", "must not name variables in credentials");
            }
        }
        let op = if op == "SET" { FieldOp::Set(value) } else { FieldOp::Add(value) };
        Some(FieldEdit { name: name.to_owned(), op })
    });
    if edits.len() > Edits::MOST {
        o.fault(name, format!("must not be more than {}", Edits::MOST));
    }
    edits
}

fn template(o: &mut Object<'_>, of: Of) -> Option<Template> {
    if !o.has("value") {
        return o.missing("value");
    }
    let value = o.parsed("value", Template::parse)?;
    if of == Of::Request && value.variables().any(Variable::is_of_member) {
        o.fault("value", "names the member, which is known of a response alone");
    }
    Some(value)
}

fn path_edit(o: &mut Object<'_>) -> Option<PathEdit> {
    let prefix = o.text("prefix", MAX_TEXT);
    let regex = o.text("regex", MAX_TEXT);
    let replacement = match o.has("replacement") {
        true => o.text("replacement", MAX_TEXT),
        false => o.missing("replacement"),
    };
    if o.has("prefix") == o.has("regex") {
        o.own_fault("must have one of prefix, regex");
        return None;
    }
    if let Some(prefix) = prefix
        && (!prefix.starts_with('/') || !is_of_path(prefix))
    {
        o.fault(
            "prefix",
            "must begin with / and have nothing in it but what a path may: percent-encode the rest",
        );
    }
    if let Some(regex) = regex {
        if regex.is_empty() {
            o.fault("regex", "must not be empty");
        }
        if regex.contains(['\r', '\n', '\0']) {
            o.fault("regex", "must not contain line breaks or NUL");
        }
    }
    let replacement = replacement?;
    if !is_of_path(&replacement.replace('\\', "")) {
        o.fault("replacement", "must have nothing in it but what a path may: percent-encode the rest");
    }
    // No variable that there is may be in it, so none would be put in.
    if replacement.contains("${") {
        o.fault("replacement", "has a ${, and no variables: those are for values of fields");
    }
    if let Some(prefix) = prefix {
        if replacement.contains('\\') || !replacement.is_empty() && !replacement.starts_with('/') {
            o.fault("replacement", "must begin with /, or be empty, and have no backslash");
        }
        return Some(PathEdit::Prefix { prefix: prefix.to_owned(), replacement: replacement.to_owned() });
    }
    if let Err(reason) = replacement_pieces(replacement) {
        o.fault("replacement", reason);
    }
    Some(PathEdit::Regex { regex: regex?.to_owned(), replacement: replacement.to_owned() })
}

/// Visible ASCII without what begins a query or a fragment.
fn is_of_path(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'))
}

/// Reads `answer`.
pub(super) fn answer(o: &mut Object<'_>) -> Option<Answer> {
    o.object("answer", |o| {
        let status = o.require("status", |o, name| o.integer(name, 200..=599_u16));
        let content_type = o.text("content_type", MAX_NAME);
        let plain = |text: &str| text.trim() == text && !text.is_empty() && check::header_value(text).is_ok();
        if content_type.is_some_and(|text| !plain(text)) {
            o.fault("content_type", "must be visible ASCII characters, with white space between them alone");
        }
        if content_type.is_some_and(|text| text.contains("${")) {
            o.fault("content_type", "has a ${, and no variables: those are for values of fields");
        }
        let body = o.text("body", Answer::MAX_BODY).unwrap_or_default();
        if body.len() > Answer::MAX_BODY {
            o.fault("body", format!("must not be longer than {} bytes", Answer::MAX_BODY));
        }
        let bare = status.is_some_and(Answer::is_without_body);
        if let Some(status) = status.filter(|_| bare && !body.is_empty()) {
            o.fault("body", format!("must be empty with status {status}"));
        }
        let fields = o.objects("fields", |o| {
            let name = field_name(o, "name");
            let value = template(o, Of::Request);
            Some((name?.to_owned(), value?))
        });
        if fields.len() > Answer::MOST_FIELDS {
            o.fault("fields", format!("must not be more than {}", Answer::MOST_FIELDS));
        }
        if fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            o.fault("fields", "must not have Content-Type, which is content_type");
        }
        let content_type = content_type.map(str::to_owned);
        Some(Answer { status: status?, content_type, body: body.to_owned(), fields })
    })
}

/// Writes `edits`.
pub(super) fn write_edits(edits: &Edits) -> Value {
    let mut document = json!({});
    let field = |edit: &FieldEdit| match &edit.op {
        FieldOp::Set(value) => json!({ "op": "SET", "name": edit.name, "value": value.to_string() }),
        FieldOp::Add(value) => json!({ "op": "ADD", "name": edit.name, "value": value.to_string() }),
        FieldOp::Remove => json!({ "op": "REMOVE", "name": edit.name }),
    };
    for (name, edits) in [("request", &edits.request), ("response", &edits.response)] {
        if !edits.is_empty() {
            document[name] = edits.iter().map(field).collect();
        }
    }
    match &edits.path {
        Some(PathEdit::Prefix { prefix, replacement }) => {
            document["path"] = json!({ "prefix": prefix, "replacement": replacement });
        }
        Some(PathEdit::Regex { regex, replacement }) => {
            document["path"] = json!({ "regex": regex, "replacement": replacement });
        }
        None => {}
    }
    if let Some(host) = &edits.host {
        document["host"] = host.as_str().into();
    }
    document
}

/// Writes `answer`.
pub(super) fn write_answer(answer: &Answer) -> Value {
    let mut document = json!({ "status": answer.status, "body": answer.body });
    if let Some(content_type) = &answer.content_type {
        document["content_type"] = content_type.as_str().into();
    }
    if !answer.fields.is_empty() {
        let field = |(name, value): &(String, Template)| json!({ "name": name, "value": value.to_string() });
        document["fields"] = answer.fields.iter().map(field).collect();
    }
    document
}
