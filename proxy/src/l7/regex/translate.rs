//! PCRE2's dialect, rewritten for the `regex-syntax` crate where the two have the same expressions.
//!
//! They agree on most of what people write, and differ quietly on the rest (`a++`, `[a&&b]`, `\v`, `\<`). So an expression
//! is read here as PCRE2 10.42 reads it, byte by byte and without UTF, and written out in the common subset; what is not in
//! it (look-around, back-references, atomic groups), or is read in different ways by different versions, has no
//! translation. That PCRE2 takes the expression is already known. Only "is there a match" is ever asked, so captures
//! and laziness are dropped.

use std::fmt::Write as _;

/// The largest count in `{n,m}`, as in PCRE2.
const MAX_COUNT: u32 = 65_535;

/// A byte of the pattern; `quoted` ones stood between `\Q` and `\E` and mean themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Token {
    byte: u8,
    quoted: bool,
}

/// Resolves `\Q...\E`.
fn tokens(pattern: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut quoted = false;
    let mut at = 0;
    while at < pattern.len() {
        let rest = &pattern[at..];
        if rest.starts_with(br"\E") {
            quoted = false;
            at += 2;
        } else if !quoted && rest.starts_with(br"\Q") {
            quoted = true;
            at += 2;
        } else {
            let length = if !quoted && rest[0] == b'\\' { rest.len().min(2) } else { 1 };
            tokens.extend((at..at + length).map(|offset| Token { byte: pattern[offset], quoted }));
            at += length;
        }
    }
    tokens
}

/// The expression in the common subset, if it is in it.
pub(super) fn translate(expression: &str) -> Option<String> {
    let mut translator = Translator {
        tokens: tokens(expression.as_bytes()),
        at: 0,
        out: String::with_capacity(expression.len() * 2),
        depth: 0,
        repeatable: false,
    };
    while translator.at < translator.tokens.len() {
        translator.item()?;
    }
    (translator.depth == 0).then_some(translator.out)
}

/// What an escape inside or outside of a class stands for.
enum Escape {
    Byte(u8),
    /// The inside of a class in the `regex` crate's syntax, and whether it is negated.
    Set(&'static str, bool),
}

const HORIZONTAL_SPACE: &str = r"\t\x20\xA0";
const VERTICAL_SPACE: &str = r"\n\x0B\x0C\r\x85";

struct Translator {
    tokens: Vec<Token>,
    at: usize,
    out: String,
    depth: usize,
    /// Whether a quantifier may follow.
    repeatable: bool,
}

impl Translator {
    /// The next byte, if it is not a quoted one.
    fn peek(&self) -> Option<u8> {
        self.tokens.get(self.at).filter(|t| !t.quoted).map(|t| t.byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Whether the coming unquoted bytes begin with `text`.
    fn ahead(&self, text: &[u8]) -> bool {
        text.iter().enumerate().all(|(i, byte)| {
            self.tokens.get(self.at + i).is_some_and(|token| !token.quoted && token.byte == *byte)
        })
    }

    fn literal(&mut self, byte: u8) {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_') {
            self.out.push(char::from(byte));
        } else {
            let _ = write!(self.out, r"\x{byte:02X}");
        }
    }

    fn item(&mut self) -> Option<()> {
        let token = self.tokens[self.at];
        self.at += 1;
        if token.quoted {
            self.literal(token.byte);
            self.repeatable = true;
            return Some(());
        }
        match token.byte {
            b'\\' => self.escape(),
            b'[' => self.class(),
            b'(' => self.group(),
            b')' => {
                self.depth = self.depth.checked_sub(1)?;
                self.out.push(')');
                self.repeatable = true;
                Some(())
            }
            byte @ (b'*' | b'+' | b'?') => {
                self.repeatable.then_some(())?;
                self.out.push(char::from(byte));
                self.after_quantifier()
            }
            b'{' => self.brace(),
            byte @ (b'^' | b'$' | b'|') => {
                self.out.push(char::from(byte));
                self.repeatable = false;
                Some(())
            }
            b'.' => {
                self.out.push('.');
                self.repeatable = true;
                Some(())
            }
            byte => {
                self.literal(byte);
                self.repeatable = true;
                Some(())
            }
        }
    }

    fn after_quantifier(&mut self) -> Option<()> {
        if self.take(b'+') {
            // It is possessive.
            return None;
        }
        self.take(b'?');
        self.repeatable = false;
        Some(())
    }

    /// `{n}`, `{n,}`, `{n,m}`; any other `{` means itself.
    fn brace(&mut self) -> Option<()> {
        let rest = &self.tokens[self.at..];
        let inside: Vec<u8> =
            rest.iter().take_while(|t| !t.quoted && t.byte != b'}').map(|t| t.byte).collect();
        let closed = rest.get(inside.len()).is_some_and(|t| !t.quoted);
        let counts = std::str::from_utf8(&inside).unwrap_or_default();
        let (low, high) = counts.split_once(',').unwrap_or((counts, counts));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !closed || low.is_empty() || !digits(low) || !digits(high) {
            self.literal(b'{');
            self.repeatable = true;
            return Some(());
        }
        self.repeatable.then_some(())?;
        let count = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MAX_COUNT);
        match (count(low), count(high)) {
            (Some(_), None) if high.is_empty() => {}
            (Some(low), Some(high)) if low <= high => {}
            _ => return None,
        }
        self.at += inside.len() + 1;
        let _ = write!(self.out, "{{{counts}}}");
        self.after_quantifier()
    }

    fn group(&mut self) -> Option<()> {
        let before = std::mem::take(&mut self.repeatable);
        if self.peek() == Some(b'*') {
            return None;
        }
        if !self.take(b'?') {
            self.open();
            return Some(());
        }
        match self.peek() {
            Some(b'#') => {
                // A quantifier after a comment repeats what stands before it.
                self.repeatable = before;
                return self.comment();
            }
            Some(b':' | b'|') => self.at += 1,
            Some(b'<') if self.ahead(b"<=") || self.ahead(b"<!") => return None,
            Some(b'<') => self.name(1, b'>')?,
            Some(b'\'') => self.name(1, b'\'')?,
            Some(b'P') if self.ahead(b"P<") => self.name(2, b'>')?,
            _ => return self.flags(),
        }
        self.open();
        Some(())
    }

    fn open(&mut self) {
        self.out.push_str("(?:");
        self.depth += 1;
    }

    /// `(?#...)`.
    fn comment(&mut self) -> Option<()> {
        self.at += self.tokens[self.at..].iter().position(|t| t.byte == b')')? + 1;
        Some(())
    }

    /// A group's name, `skip` bytes ahead; names are of no use without captures.
    fn name(&mut self, skip: usize, close: u8) -> Option<()> {
        self.at += skip;
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
            self.at += 1;
        }
        let digit = self.tokens.get(start).is_some_and(|t| t.byte.is_ascii_digit());
        (self.at > start && !digit && self.take(close)).then_some(())
    }

    /// `(?i-s)` and `(?i-s:...)`.
    fn flags(&mut self) -> Option<()> {
        let mut set = [None; 3];
        let mut on = true;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'i' => set[0] = Some(on),
                b'm' => set[1] = Some(on),
                b's' => set[2] = Some(on),
                // Numbering, duplicate names and greed do not change whether there is a match.
                b'n' | b'J' | b'U' => {}
                b'-' if on => on = false,
                b')' | b':' => {
                    let letters = |state| {
                        "ims"
                            .chars()
                            .zip(set)
                            .filter(move |(_, s)| *s == Some(state))
                            .map(|(letter, _)| letter)
                    };
                    let off: String = letters(false).collect();
                    let text: String =
                        letters(true).chain((!off.is_empty()).then_some('-')).chain(off.chars()).collect();
                    if byte == b':' {
                        let _ = write!(self.out, "(?{text}:");
                        self.depth += 1;
                    } else if !text.is_empty() {
                        let _ = write!(self.out, "(?{text})");
                    }
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// What follows a backslash outside of a class.
    fn escape(&mut self) -> Option<()> {
        let byte = self.peek()?;
        self.repeatable = false;
        self.at += 1;
        match byte {
            b'b' | b'B' | b'A' | b'z' => {
                let _ = write!(self.out, r"\{}", char::from(byte));
                return Some(());
            }
            // No subject has a line break at its end, where alone \Z differs.
            b'Z' => {
                self.out.push_str(r"\z");
                return Some(());
            }
            b'N' if self.peek() != Some(b'{') => self.out.push_str(r"[^\n]"),
            _ => match self.common_escape(byte)? {
                Escape::Byte(byte) => self.literal(byte),
                Escape::Set(set, negated) => {
                    let _ = write!(self.out, "[{}{set}]", if negated { "^" } else { "" });
                }
            },
        }
        self.repeatable = true;
        Some(())
    }

    /// The escapes that mean the same inside and outside of a class; `byte` is the one after the backslash.
    fn common_escape(&mut self, byte: u8) -> Option<Escape> {
        Some(match byte {
            b'd' => Escape::Set(r"\d", false),
            b'D' => Escape::Set(r"\d", true),
            b's' => Escape::Set(r"\s", false),
            b'S' => Escape::Set(r"\s", true),
            b'w' => Escape::Set(r"\w", false),
            b'W' => Escape::Set(r"\w", true),
            b'h' => Escape::Set(HORIZONTAL_SPACE, false),
            b'H' => Escape::Set(HORIZONTAL_SPACE, true),
            b'v' => Escape::Set(VERTICAL_SPACE, false),
            b'V' => Escape::Set(VERTICAL_SPACE, true),
            b'a' => Escape::Byte(0x07),
            b'e' => Escape::Byte(0x1B),
            b'f' => Escape::Byte(0x0C),
            b'n' => Escape::Byte(b'\n'),
            b'r' => Escape::Byte(b'\r'),
            b't' => Escape::Byte(b'\t'),
            b'0' => Escape::Byte(self.number(8, 2)),
            b'x' if self.take(b'{') => {
                let start = self.at;
                let mut value = 0u32;
                while let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(16)) {
                    value = value.saturating_mul(16).saturating_add(digit);
                    self.at += 1;
                }
                match u8::try_from(value) {
                    Ok(value) if self.at > start && self.take(b'}') => Escape::Byte(value),
                    _ => return None,
                }
            }
            b'x' => Escape::Byte(self.number(16, 2)),
            b'c' => match self.peek() {
                Some(letter @ b' '..=b'~') => {
                    self.at += 1;
                    Escape::Byte(letter.to_ascii_uppercase() ^ 0x40)
                }
                _ => return None,
            },
            // Back-references and Unicode properties among them.
            byte if byte.is_ascii_alphanumeric() => return None,
            byte => Escape::Byte(byte),
        })
    }

    /// At most `digits` digits; none is 0.
    fn number(&mut self, radix: u32, digits: usize) -> u8 {
        let mut value = 0u32;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(radix)) else { break };
            value = value * radix + digit;
            self.at += 1;
        }
        u8::try_from(value).expect("two hexadecimal digits make a byte")
    }

    /// `[...]`, from after the bracket.
    fn class(&mut self) -> Option<()> {
        if self.named_class()?.is_some() {
            return None;
        }
        self.out.push('[');
        if self.take(b'^') {
            self.out.push('^');
        }
        let mut members = 0;
        let mut before = Before::Nothing;
        loop {
            if members > 0 && self.take(b']') {
                break;
            }
            members += 1;
            let starts_range = before != Before::Nothing
                && self.ahead(b"-")
                && self.tokens.get(self.at + 1).is_some()
                && !self.ahead(b"-]");
            if starts_range {
                self.at += 1;
                let (Before::Byte(low), ClassItem::Byte(high)) = (before, self.class_item()?) else {
                    return None;
                };
                if low > high {
                    return None;
                }
                let _ = write!(self.out, r"-\x{high:02X}");
                before = Before::Nothing;
                continue;
            }
            before = match self.class_item()? {
                ClassItem::Byte(byte) => {
                    let _ = write!(self.out, r"\x{byte:02X}");
                    Before::Byte(byte)
                }
                ClassItem::Set => Before::Set,
            };
        }
        self.out.push(']');
        self.repeatable = true;
        Some(())
    }

    /// One byte or set of a class; a set is written out, a byte is not.
    fn class_item(&mut self) -> Option<ClassItem> {
        let token = self.tokens.get(self.at).copied()?;
        self.at += 1;
        if token.quoted {
            return Some(ClassItem::Byte(token.byte));
        }
        match token.byte {
            b'[' => match self.named_class()? {
                Some(name) => {
                    let _ = write!(self.out, "[:{name}:]");
                    Some(ClassItem::Set)
                }
                None => Some(ClassItem::Byte(b'[')),
            },
            b'\\' => {
                let byte = self.peek()?;
                self.at += 1;
                match byte {
                    b'b' => Some(ClassItem::Byte(0x08)),
                    b'1'..=b'9' => None,
                    _ => match self.common_escape(byte)? {
                        Escape::Byte(byte) => Some(ClassItem::Byte(byte)),
                        Escape::Set(set, negated) => {
                            let _ = write!(self.out, "[{}{set}]", if negated { "^" } else { "" });
                            Some(ClassItem::Set)
                        }
                    },
                }
            }
            byte => Some(ClassItem::Byte(byte)),
        }
    }

    /// The name in `[:name:]`, from after its bracket, with `^` when it is negated; `None` when this is no such thing.
    fn named_class(&mut self) -> Option<Option<String>> {
        let Some(mark @ (b':' | b'.' | b'=')) = self.peek() else { return Some(None) };
        let mut name = String::new();
        let mut at = self.at + 1;
        loop {
            let (Some(token), Some(next)) = (self.tokens.get(at), self.tokens.get(at + 1)) else {
                return Some(None);
            };
            if token.byte == mark && next.byte == b']' {
                break;
            }
            if token.byte == b']' || (token.byte == b'[' && next.byte == mark) {
                return Some(None);
            }
            name.push(char::from(token.byte));
            at += 1;
        }
        self.at = at + 2;
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "word", "xdigit",
        ];
        if mark != b':' {
            return None;
        }
        if !NAMES.contains(&name.strip_prefix('^').unwrap_or(&name)) {
            return None;
        }
        Some(Some(name))
    }
}

/// What stood in a class before a hyphen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Byte(u8),
    Set,
}

enum ClassItem {
    Byte(u8),
    Set,
}
