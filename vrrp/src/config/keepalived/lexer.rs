//! From text to statements: the words of a line, and the block in braces that follows it.
//!
//! As in keepalived's own reader (lib/parser.c) `#` and `!` begin a comment wherever they stand outside of quotes unless
//! a backslash precedes them, a double quote begins a word that reaches to the next one, and braces outside of quotes
//! are words of their own. What would make a text mean something else than what it says (includes, parameters,
//! conditional lines, lines that are continued) is refused.

use std::fmt;

use amphora_model::{Faults, excerpt};

/// The largest text that is looked at, in octets.
pub const MAX_TEXT: usize = 1024 * 1024;
/// The deepest nesting of blocks; keepalived has three.
const MAX_DEPTH: usize = 8;
/// What keepalived takes for the name of other files.
const INCLUDES: [&str; 6] = ["include", "includer", "includea", "includem", "includew", "includeb"];

/// A line, and the block that belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Of its first word, from 1.
    pub(super) line: usize,
    /// At least one.
    pub(super) words: Vec<String>,
    /// What stands in braces behind it.
    pub(super) block: Option<Vec<Statement>>,
}

impl Statement {
    /// The first word.
    pub(super) fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words behind the first.
    pub(super) fn values(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// Notes a fault of this line.
    pub(super) fn fault(&self, faults: &Faults, reason: impl fmt::Display) {
        let text = match self.keyword() {
            // A fault ends up in logs.
            "auth_pass" => excerpt("auth_pass ..."),
            _ => excerpt(&self.words.join(" ")),
        };
        faults.push(Line(self.line), format!("{text}: {reason}"));
    }
}

/// Where a fault is.
pub(super) struct Line(pub(super) usize);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.0)
    }
}

/// The statements of a text. Faults are noted, and what can be read in spite of them is returned; `None` when that
/// would make no sense.
pub(super) fn read(text: &str, faults: &Faults) -> Option<Vec<Statement>> {
    if text.len() > MAX_TEXT {
        faults.push("", format!("the text is larger than {MAX_TEXT} octets"));
        return None;
    }
    let mut tree = Tree { open: vec![Vec::new()], faults };
    for (index, text) in text.split('\n').enumerate() {
        let line = index + 1;
        let mut words = Vec::new();
        for token in Tokens::new(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    tree.statement(line, std::mem::take(&mut words));
                    tree.open(line)?;
                }
                Token::Close => {
                    tree.statement(line, std::mem::take(&mut words));
                    tree.close(line);
                }
                Token::Fault(reason) => {
                    faults.push(Line(line), format!("{}: {reason}", excerpt(text.trim())));
                }
            }
        }
        tree.statement(line, words);
    }
    tree.finish()
}

/// The statements of blocks that are open, the outermost first.
struct Tree<'f> {
    open: Vec<Vec<Statement>>,
    faults: &'f Faults,
}

impl Tree<'_> {
    fn statement(&mut self, line: usize, words: Vec<String>) {
        let Some(first) = words.first() else { return };
        let reason = if INCLUDES.contains(&first.as_str()) {
            Some("other files are not read")
        } else if first.starts_with('@') {
            Some("conditional lines are not supported")
        } else if first.starts_with("~SEQ") || first.starts_with("~LST") {
            Some("sequences are not supported")
        } else {
            None
        };
        let statement = Statement { line, words, block: None };
        if let Some(reason) = reason {
            statement.fault(self.faults, reason);
        } else if let Some(block) = self.open.last_mut() {
            block.push(statement);
        }
    }

    /// `None` when blocks are nested too deep to go on.
    fn open(&mut self, line: usize) -> Option<()> {
        if self.open.len() > MAX_DEPTH {
            self.faults.push(Line(line), "\"{\": blocks are nested too deep");
            return None;
        }
        let owner = self.open.last_mut().and_then(|block| block.last_mut());
        if owner.is_none_or(|owner| owner.block.is_some()) {
            self.faults.push(Line(line), "\"{\": does not follow a keyword");
            // Its content has a place to go to, so that its end is found.
            let nameless = Statement { line, words: Vec::new(), block: None };
            self.open.last_mut()?.push(nameless);
        }
        self.open.push(Vec::new());
        Some(())
    }

    fn close(&mut self, line: usize) {
        if self.open.len() < 2 {
            self.faults.push(Line(line), "\"}\": closes no block");
            return;
        }
        self.end_block();
    }

    /// Gives the innermost block to the statement before it.
    fn end_block(&mut self) {
        let block = self.open.pop();
        let Some(outer) = self.open.last_mut() else { return };
        match outer.last_mut() {
            Some(owner) if !owner.words.is_empty() => owner.block = block,
            _ => drop(outer.pop()),
        }
    }

    fn finish(mut self) -> Option<Vec<Statement>> {
        while let [.., outer, _] = self.open.as_slice() {
            if let Some(owner) = outer.last() {
                owner.fault(self.faults, "its block is not closed");
            }
            self.end_block();
        }
        self.open.pop()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    Fault(&'static str),
}

/// The tokens of one line.
struct Tokens<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
}

impl<'t> Tokens<'t> {
    fn new(line: &'t str) -> Self {
        Self { rest: line.chars().peekable() }
    }

    /// Behind an opening quote.
    fn quoted(&mut self) -> Token {
        let mut word = String::new();
        while let Some(next) = self.rest.next() {
            match next {
                '"' => return Token::Word(word),
                '\\' if self.rest.peek().is_none_or(|next| *next == '"') => {
                    return self
                        .abandon("a backslash before a quote or the end of the line is not supported");
                }
                '$' if self.names_a_parameter() => return self.abandon(PARAMETER),
                '\0' => return self.abandon(NUL),
                next => word.push(next),
            }
        }
        Token::Fault("the quote is not closed")
    }

    fn plain(&mut self, first: char) -> Token {
        let mut word = String::new();
        let mut next = Some(first);
        while let Some(character) = next {
            match character {
                '\\' => match self.rest.next() {
                    Some(escaped @ ('#' | '!')) => word.push(escaped),
                    None | Some('"') => {
                        return self
                            .abandon("a backslash before a quote or the end of the line is not supported");
                    }
                    Some(other) => word.extend(['\\', other]),
                },
                '$' if self.names_a_parameter() => return self.abandon(PARAMETER),
                '\0' => return self.abandon(NUL),
                character => word.push(character),
            }
            next = self.rest.next_if(|next| !is_end_of_word(*next));
        }
        Token::Word(word)
    }

    fn names_a_parameter(&mut self) -> bool {
        self.rest.peek().is_some_and(|next| *next == '{' || *next == '_' || next.is_ascii_alphabetic())
    }

    /// Looks no further at this line.
    fn abandon(&mut self, reason: &'static str) -> Token {
        self.rest = "".chars().peekable();
        Token::Fault(reason)
    }
}

const PARAMETER: &str = "parameters are not supported";
const NUL: &str = "a NUL is not text";

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\x0c' | '\r' | '\x0b')
}

fn is_end_of_word(character: char) -> bool {
    is_blank(character) || matches!(character, '"' | '{' | '}' | '#' | '!')
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        while self.rest.next_if(|next| is_blank(*next)).is_some() {}
        match self.rest.next()? {
            '#' | '!' => {
                self.rest = "".chars().peekable();
                None
            }
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            '"' => Some(self.quoted()),
            first => Some(self.plain(first)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(line: &str) -> Vec<Token> {
        Tokens::new(line).collect()
    }

    fn word(text: &str) -> Token {
        Token::Word(text.to_owned())
    }

    fn faults_of(text: &str) -> Vec<String> {
        let faults = Faults::default();
        let statements = read(text, &faults);
        match faults.into_result(statements) {
            Ok(_) => vec![],
            Err(refusal) => refusal.faults.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn words_end_at_blanks_quotes_braces_and_comments() {
        assert_eq!(words("  a\tb\x0cc\r"), [word("a"), word("b"), word("c")]);
        assert_eq!(words("a{b}c"), [word("a"), Token::Open, word("b"), Token::Close, word("c")]);
        assert_eq!(words("a\"b c\"d"), [word("a"), word("b c"), word("d")]);
        assert_eq!(words("a\"\""), [word("a"), word("")]);
        assert_eq!(words("\"{#!\" }"), [word("{#!"), Token::Close]);
        assert_eq!(words("a#b c"), [word("a")]);
        assert_eq!(words("a b!c"), [word("a"), word("b")]);
        assert_eq!(words(" # \" "), []);
    }

    #[test]
    fn a_backslash_takes_the_meaning_of_a_comment_and_is_kept_elsewhere() {
        assert_eq!(words(r"a\#b \!c"), [word("a#b"), word("!c")]);
        assert_eq!(words(r#"a\nb "c\#""#), [word(r"a\nb"), word(r"c\#")]);
        assert_eq!(words("a$1 $ $$"), [word("a$1"), word("$"), word("$$")]);
    }

    #[test]
    fn a_block_may_begin_on_the_next_line_and_lie_on_one() {
        let faults = Faults::default();
        let statements = read("a\n\n{ b {c d} e\n}\nf", &faults).unwrap();
        assert!(faults.into_result(Some(())).is_ok());
        let [a, f] = statements.as_slice() else { panic!("{statements:?}") };
        assert_eq!((a.line, f.line, f.keyword()), (1, 5, "f"));
        let [b, e] = a.block.as_deref().unwrap() else { panic!("{a:?}") };
        assert_eq!((b.line, e.line, e.values()), (3, 3, &[][..]));
        assert_eq!(b.block.as_deref().unwrap()[0].values(), ["d"]);
    }

    #[test]
    fn braces_that_do_not_match_are_faults_with_their_line() {
        assert_eq!(faults_of("{\n}"), ["line 1: \"{\": does not follow a keyword"]);
        assert_eq!(faults_of("a {\n} {\n}"), ["line 2: \"{\": does not follow a keyword"]);
        assert_eq!(faults_of("a {\n}\n}"), ["line 3: \"}\": closes no block"]);
        assert_eq!(
            faults_of("\na {\nb c {\n"),
            ["line 3: \"b c\": its block is not closed", "line 2: \"a\": its block is not closed"]
        );
        assert_eq!(faults_of(&"a {".repeat(100_000)), ["line 1: \"{\": blocks are nested too deep"]);
    }

    #[test]
    fn what_changes_the_meaning_of_a_text_is_refused_by_name() {
        let text = "include /etc/a\nincludem b\n@one c\n$A=1\n~SEQ(i,1,2) d\ne ${_PWD}\nf \\\ng \"h\ni \"j$_R\"\nk \\\"";
        let found = faults_of(text);
        let lines: Vec<_> = found.iter().map(|fault| fault.split(':').next().unwrap()).collect();
        let expected: Vec<_> = (1..=10).map(|line| format!("line {line}")).collect();
        assert_eq!(lines, expected, "{found:#?}");
        assert_eq!(found[0], "line 1: \"include /etc/a\": other files are not read");
        assert_eq!(found[3], "line 4: \"$A=1\": parameters are not supported");
        assert_eq!(faults_of("a \0"), ["line 1: \"a \\0\": a NUL is not text"]);
        assert!(faults_of(&"#".repeat(MAX_TEXT + 1))[0].contains("larger than"));
    }
}
