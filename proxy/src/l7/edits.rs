//! What policies change in requests and responses, and answer themselves: compiled, and written for one request.

use std::{io::Write, net::SocketAddr, sync::Arc};

use amphora_model::{FieldEdit, FieldOp, Piece, ReplacementPiece, Template, Variable};

use super::regex::{Allowance, Rewrite};
use crate::http::{EditList, Known, MAX_HEAD, TooLong};

/// What the values of fields may name of a request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client's address.
    pub client: SocketAddr,
    /// The listener's port, in decimal.
    pub listener_port: &'a str,
    /// The member's address, once one has answered.
    pub member: Option<SocketAddr>,
    /// The request's id.
    pub request_id: &'a [u8],
    /// The host that the client has asked for.
    pub host: &'a [u8],
    /// The path, without the query.
    pub path: &'a [u8],
}

/// The edits of one policy.
#[derive(Debug)]
pub struct Edits {
    request: Box<[Edit]>,
    response: Box<[Edit]>,
    path: Option<PathEdit>,
    host: Option<Box<[u8]>>,
}

#[derive(Debug)]
struct Edit {
    /// In lower case.
    name: Box<[u8]>,
    known: Known,
    removes: bool,
    value: Option<Template>,
}

#[derive(Debug)]
pub(super) enum PathEdit {
    Prefix(Box<[u8]>, Box<[u8]>),
    Regex(Arc<Rewrite>, Box<[ReplacementPiece]>),
}

impl Edits {
    /// Compiles what a policy says; the expression in it is given beside it.
    pub(super) fn new(edits: &amphora_model::Edits, path: Option<PathEdit>) -> Self {
        let list = |edits: &[FieldEdit]| edits.iter().map(Edit::new).collect();
        Self {
            request: list(&edits.request),
            response: list(&edits.response),
            path,
            host: edits.host.as_ref().map(|host| host.as_bytes().into()),
        }
    }

    /// Whether responses are changed.
    pub fn has_response(&self) -> bool {
        !self.response.is_empty()
    }

    /// The host in place of the client's.
    pub fn host(&self) -> Option<&[u8]> {
        self.host.as_deref()
    }

    /// Appends the edits of the request's fields.
    ///
    /// # Errors
    /// When all of them are too long together.
    pub fn of_request<'a>(&'a self, facts: &Facts<'_>, list: &mut EditList<'a>) -> Result<(), TooLong> {
        self.request.iter().try_for_each(|edit| edit.write(facts, list))
    }

    /// Appends the edits of the response's fields.
    ///
    /// # Errors
    /// As [`of_request`](Self::of_request).
    pub fn of_response<'a>(&'a self, facts: &Facts<'_>, list: &mut EditList<'a>) -> Result<(), TooLong> {
        self.response.iter().try_for_each(|edit| edit.write(facts, list))
    }

    /// The path that comes of this one, if it is another.
    ///
    /// # Errors
    /// When it is too long.
    pub(super) fn path(&self, path: &[u8], allowance: &mut Allowance) -> Result<Option<Vec<u8>>, TooLong> {
        let mut new = vec![];
        match &self.path {
            None => return Ok(None),
            Some(PathEdit::Prefix(prefix, replacement)) => {
                let Some(rest) = path.strip_prefix(&**prefix) else { return Ok(None) };
                new.extend_from_slice(replacement);
                new.extend_from_slice(rest);
            }
            Some(PathEdit::Regex(rewrite, replacement)) => {
                let Some(groups) = rewrite.find(path, allowance) else { return Ok(None) };
                for piece in replacement {
                    match piece {
                        ReplacementPiece::Text(text) => new.extend_from_slice(text.as_bytes()),
                        ReplacementPiece::Group(group) => {
                            let matched = groups[usize::from(*group)].clone();
                            new.extend_from_slice(matched.map_or(b"", |matched| &path[matched]));
                        }
                    }
                    if new.len() > MAX_HEAD {
                        return Err(TooLong);
                    }
                }
            }
        }
        if new.first() != Some(&b'/') {
            new.insert(0, b'/');
        }
        if new.len() > MAX_HEAD { Err(TooLong) } else { Ok(Some(new)) }
    }
}

/// Edits of a response that is still to come, with what its request was.
#[derive(Debug)]
pub struct LateEdits {
    edits: Box<[Arc<Edits>]>,
    client: SocketAddr,
    listener_port: Box<str>,
    request_id: Box<[u8]>,
    host: Box<[u8]>,
    path: Box<[u8]>,
}

impl LateEdits {
    /// `None` when none of these changes responses.
    pub fn new<'e>(edits: impl Iterator<Item = &'e Arc<Edits>>, facts: &Facts<'_>) -> Option<Self> {
        let edits: Box<[_]> = edits.filter(|edits| edits.has_response()).cloned().collect();
        (!edits.is_empty()).then(|| Self {
            edits,
            client: facts.client,
            listener_port: facts.listener_port.into(),
            request_id: facts.request_id.into(),
            host: facts.host.into(),
            path: facts.path.into(),
        })
    }

    /// The edits of the response of this member.
    ///
    /// # Errors
    /// When all of them are too long together.
    pub fn fields(&self, member: SocketAddr) -> Result<EditList<'_>, TooLong> {
        let facts = Facts {
            client: self.client,
            listener_port: &self.listener_port,
            member: Some(member),
            request_id: &self.request_id,
            host: &self.host,
            path: &self.path,
        };
        let mut fields = EditList::default();
        self.edits.iter().try_for_each(|edits| edits.of_response(&facts, &mut fields))?;
        Ok(fields)
    }
}

impl Edit {
    fn new(edit: &FieldEdit) -> Self {
        let name: Box<[u8]> = edit.name.to_ascii_lowercase().into_bytes().into();
        let known = Known::of(&name);
        let (removes, value) = match &edit.op {
            FieldOp::Set(value) => (true, Some(value.clone())),
            FieldOp::Add(value) => (false, Some(value.clone())),
            FieldOp::Remove => (true, None),
        };
        Self { name, known, removes, value }
    }

    fn write<'a>(&'a self, facts: &Facts<'_>, list: &mut EditList<'a>) -> Result<(), TooLong> {
        match &self.value {
            Some(value) => list.add(&self.name, self.known, self.removes, |out| write(out, value, facts)),
            None => {
                list.remove(&self.name, self.known);
                Ok(())
            }
        }
    }
}

/// Appends a value.
///
/// Nothing that is named can end a line: heads with such bytes in them were refused when they were read.
fn write(out: &mut Vec<u8>, value: &Template, facts: &Facts<'_>) -> Result<(), TooLong> {
    for piece in value.pieces() {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Variable(variable) => write_variable(out, *variable, facts),
        }
        if out.len() > MAX_HEAD {
            return Err(TooLong);
        }
    }
    Ok(())
}

fn write_variable(out: &mut Vec<u8>, variable: Variable, facts: &Facts<'_>) {
    // Writing to a vector does not fail.
    let _ = match (variable, facts.member) {
        (Variable::ClientAddress, _) => write!(out, "{}", facts.client.ip()),
        (Variable::ClientPort, _) => write!(out, "{}", facts.client.port()),
        (Variable::MemberAddress, Some(member)) => write!(out, "{}", member.ip()),
        (Variable::MemberPort, Some(member)) => write!(out, "{}", member.port()),
        (Variable::MemberAddress | Variable::MemberPort, None) => Ok(()),
        (Variable::ListenerPort, _) => out.write_all(facts.listener_port.as_bytes()),
        (Variable::RequestId, _) => out.write_all(facts.request_id),
        (Variable::Host, _) => out.write_all(facts.host),
        (Variable::Path, _) => out.write_all(facts.path),
    };
}

/// What a policy answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head up to the fields of the policy, without what says how the connection goes on.
    head: Box<[u8]>,
    fields: Box<[(Box<[u8]>, Template)]>,
    body: Box<[u8]>,
}

impl Answer {
    pub(super) fn new(answer: &amphora_model::Answer) -> Self {
        let status = answer.status;
        let reason = reason(status);
        let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
        // 205 has none either, and has to say so.
        if !matches!(status, 204 | 304) {
            head += &format!("content-length: {}\r\n", answer.body.len());
        }
        if let Some(content_type) = &answer.content_type {
            head += &format!("content-type: {content_type}\r\n");
        }
        let field = |(name, value): &(String, Template)| {
            (name.to_ascii_lowercase().into_bytes().into(), value.clone())
        };
        Self {
            status,
            head: head.into_bytes().into(),
            fields: answer.fields.iter().map(field).collect(),
            body: answer.body.as_bytes().into(),
        }
    }

    /// Appends the head, up to what says how the connection goes on.
    ///
    /// # Errors
    /// When it is too long; what was written is to be dropped.
    pub fn write_head(&self, out: &mut Vec<u8>, facts: &Facts<'_>) -> Result<(), TooLong> {
        out.extend_from_slice(&self.head);
        for (name, value) in &self.fields {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            write(out, value, facts)?;
            out.extend_from_slice(b"\r\n");
        }
        // What says how the connection goes on has to fit, too.
        if out.len() + 64 > MAX_HEAD { Err(TooLong) } else { Ok(()) }
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

fn reason(status: u16) -> &'static str {
    let known = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.unwrap_or("Unknown")
}
