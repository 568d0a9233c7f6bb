//! What L7 policies change in requests and responses, and answers of a policy's own: what stands in `amphora` of policies.

use std::fmt;

/// `amphora.edits` of an L7 policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Fields of the request, in order.
    pub request: Vec<FieldEdit>,
    /// Fields of the member's response, in order.
    pub response: Vec<FieldEdit>,
    /// The path.
    pub path: Option<PathEdit>,
    /// The host, perhaps with a port.
    pub host: Option<String>,
}

impl Edits {
    /// How many edits of fields one list may have.
    pub const MOST: usize = 32;

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An edit of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldEdit {
    /// `name`, a token.
    pub name: String,
    /// `op` and `value`.
    pub op: FieldOp,
}

/// What is done to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldOp {
    /// `SET`: this value takes the place of all that there are.
    Set(Template),
    /// `ADD`: this value is one more.
    Add(Template),
    /// `REMOVE`.
    Remove,
}

/// An edit of the path, which leaves the query alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    /// A path that begins with `prefix` begins with `replacement` in its place.
    Prefix {
        /// `prefix`.
        prefix: String,
        /// `replacement`.
        replacement: String,
    },
    /// A path that `regex` matches becomes `replacement`, as HAProxy's `replace-path` has it.
    Regex {
        /// `regex`.
        regex: String,
        /// `replacement`, where `\\0` to `\\9` stand for what the groups have matched.
        replacement: String,
    },
}

/// `amphora.answer` of an L7 policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `status`, 200 to 599.
    pub status: u16,
    /// `content_type`.
    pub content_type: Option<String>,
    /// `body`, at most [`Answer::MAX_BODY`] bytes.
    pub body: String,
    /// `fields`: names and values.
    pub fields: Vec<(String, Template)>,
}

impl Answer {
    /// The most bytes of a body.
    pub const MAX_BODY: usize = 16 * 1024;

    /// How many fields there may be.
    pub const MOST_FIELDS: usize = 16;

    /// Whether an answer of this status has no body (RFC 9110).
    pub fn is_without_body(status: u16) -> bool {
        matches!(status, 204 | 205 | 304)
    }
}

/// The value of a field: text with variables in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A piece of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is; never empty.
    Text(String),
    /// What is known of the request.
    Variable(Variable),
}

macro_rules! variables {
    ($($(#[$doc:meta])* $variable:ident $name:literal)*) => {
        /// What a value may name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Variable {
            $($(#[$doc])* $variable,)*
        }

        impl Variable {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variable),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variable => $name,)*
                }
            }
        }
    };
}

variables! {
    /// The client's address.
    ClientAddress "client_address"
    /// The client's port.
    ClientPort "client_port"
    /// `protocol_port` of the listener.
    ListenerPort "listener_port"
    /// The member's address; of responses alone.
    MemberAddress "member_address"
    /// The member's port; of responses alone.
    MemberPort "member_port"
    /// The request's id.
    RequestId "request_id"
    /// The host that the client has asked for, as it came.
    Host "host"
    /// The path that the client has asked for, as it came, without its query.
    Path "path"
}

impl Variable {
    /// Whether it is known only once a member has answered.
    pub fn is_of_member(self) -> bool {
        matches!(self, Self::MemberAddress | Self::MemberPort)
    }
}

impl Template {
    /// The most bytes of a value, its variables by their names.
    pub const MAX: usize = 1024;

    /// Reads a value.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX {
            return Err(format!("must not be longer than {} bytes", Self::MAX));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\t') {
            return Err("must be visible ASCII characters, spaces and tabs".into());
        }
        if text.trim() != text {
            return Err("must not begin or end with white space".into());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            let name = behind.split_once('}').map(|(name, _)| name);
            let variable =
                name.and_then(|name| Variable::ALL.iter().find(|variable| variable.name() == name));
            let (Some(name), Some(variable)) = (name, variable) else {
                let names: Vec<_> = Variable::ALL.iter().map(|variable| variable.name()).collect();
                return Err(format!("has a ${{ that no name of a variable follows: {}", names.join(", ")));
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Variable(*variable));
            rest = &behind[name.len() + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// Its pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(*variable),
            Piece::Text(_) => None,
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Variable(variable) => write!(f, "${{{}}}", variable.name()),
        })
    }
}

/// `replacement` of a path's `regex`, in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplacementPiece {
    /// As it is; never empty.
    Text(String),
    /// What this group has matched; 0: the whole expression.
    Group(u8),
}

/// Reads the `replacement` of a path's `regex`.
///
/// # Errors
/// Why it is none.
pub fn replacement_pieces(text: &str) -> Result<Vec<ReplacementPiece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some(digit @ '0'..='9') => {
                if !plain.is_empty() {
                    pieces.push(ReplacementPiece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(ReplacementPiece::Group(digit as u8 - b'0'));
            }
            _ => return Err("has a backslash that no digit follows".into()),
        }
    }
    if !plain.is_empty() {
        pieces.push(ReplacementPiece::Text(plain));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_text_and_variables() {
        let text = |text: &str| Piece::Text(text.into());
        for (written, pieces) in [
            ("", vec![]),
            ("a b", vec![text("a b")]),
            ("${host}", vec![Piece::Variable(Variable::Host)]),
            (
                "for=${client_address}:${client_port};$x}",
                vec![
                    text("for="),
                    Piece::Variable(Variable::ClientAddress),
                    text(":"),
                    Piece::Variable(Variable::ClientPort),
                    text(";$x}"),
                ],
            ),
        ] {
            let template = Template::parse(written).unwrap();
            assert_eq!(template.pieces(), pieces, "{written}");
            assert_eq!(template.to_string(), written);
        }
        for bad in ["${", "${}", "${hosts}", "${host", "$${member}", "a\r\nb: c", "\u{e9}", " a", "a\t", "\0"]
        {
            assert!(Template::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Template::parse(&"x".repeat(1024)).is_ok());
        assert!(Template::parse(&"x".repeat(1025)).is_err());
    }

    #[test]
    fn replacements_name_groups() {
        let group = ReplacementPiece::Group;
        let text = |text: &str| ReplacementPiece::Text(text.into());
        assert_eq!(replacement_pieces("/v2\\1/\\0").unwrap(), [text("/v2"), group(1), text("/"), group(0)]);
        assert_eq!(replacement_pieces("\\12").unwrap(), [group(1), text("2")]);
        for bad in ["\\", "/\\x", "/\\\\"] {
            assert!(replacement_pieces(bad).is_err(), "{bad}");
        }
    }
}
