//! REGEX rules: PCRE2's expressions, as HAProxy takes and runs them, within a bound on time.
//!
//! PCRE2 says what is an expression. Most are automata: [`translate`] writes them out for [`literals`] and [`dfa`], which
//! decide each subject in time linear in its length. What is none (look-around, back-references), would be too large a
//! table or comes when the [`work`] for tables is used up is left to PCRE2's interpreter, which asks [`allowance`] before
//! each item of the expression whether it may go on.

mod allowance;
mod dfa;
mod literals;
mod rewrite;
mod settings;
mod translate;
mod versions;
mod work;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, cell::RefCell};

use regex_syntax::{ParserBuilder, hir::Hir};

pub(super) use self::{allowance::Allowance, rewrite::Rewrite, work::Work};
use self::{allowance::Share, dfa::Dfa, literals::Literals};
use crate::sys::pcre2::{Attempt, Code, CompileError, Interpreter, Options, Stopped};

/// KiB that the interpreter may take for backtracking.
const HEAP_LIMIT: u32 = 1024;

/// Bytes of them that a worker keeps.
const HEAP_KEPT: usize = 64 * 1024;

/// Units that a search of a table costs beside the subject's length.
const SEARCH: usize = 30;

/// Units that a step of the interpreter costs.
const STEP: usize = 32;

/// Between two steps the interpreter looks at most through the whole subject, and seldom does: of this many bytes each
/// adds a unit to the steps.
const BYTES_PER_UNIT: usize = 64;

/// Backtracking points that an attempt without steps begins with.
const FIRST_LIMIT: u32 = 64;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression(Program);

#[derive(Debug)]
enum Program {
    Literals(Literals),
    Dfa(Box<Dfa>),
    /// Compiled with callouts.
    Steps(Code),
    /// Too large with callouts (PCRE2 compiles to at most 64 KiB): compiled without.
    Attempts(Code),
}

impl Expression {
    /// The expression, or why PCRE2 refuses it. Without `work` it is valid all the same, and interpreted.
    pub(super) fn compile(expression: &str, ignore_case: bool, work: &mut Work) -> Result<Self, String> {
        let (expression, code, options) = read(expression, ignore_case)?;
        let program = match automaton(&expression, ignore_case, work) {
            Some(program) => program,
            None => interpreted(&expression, options, code),
        };
        Ok(Self(program))
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.0 {
                Program::Literals(literals) => literals.bytes(),
                Program::Dfa(dfa) => dfa.bytes(),
                Program::Steps(code) | Program::Attempts(code) => code.size(),
            }
    }

    /// Whether it may cost much more than a look at each byte.
    pub(super) fn backtracks(&self) -> bool {
        matches!(self.0, Program::Steps(_) | Program::Attempts(_))
    }

    /// Whether the allowance has nothing left for it: then it matches no subject.
    pub(super) fn is_exhausted(&self, allowance: &mut Allowance) -> bool {
        let share = if self.backtracks() { Share::Backtracking } else { Share::Automata };
        if !allowance.has(share) {
            allowance.exceed();
        }
        !allowance.has(share)
    }

    /// Whether the subject has a match, and the allowance suffices to find it.
    #[inline]
    pub(super) fn is_match(&self, subject: &[u8], allowance: &mut Allowance) -> bool {
        match &self.0 {
            Program::Literals(literals) => {
                allowance.charge(subject.len() + SEARCH, Share::Automata) && literals.is_match(subject)
            }
            Program::Dfa(dfa) => {
                allowance.charge(subject.len() + SEARCH, Share::Automata) && dfa.is_match(subject)
            }
            Program::Steps(code) => backtrack(allowance, |interpreter, allowance| {
                let units = STEP + subject.len() / BYTES_PER_UNIT;
                let step = || allowance.charge(units, Share::Backtracking);
                interpreter.is_match(code, subject, Attempt::Anywhere, step)
            }),
            Program::Attempts(code) => {
                backtrack(allowance, |interpreter, allowance| attempts(interpreter, code, subject, allowance))
            }
        }
    }
}

/// The expression as HAProxy reads it.
fn read(expression: &str, ignore_case: bool) -> Result<(Cow<'_, str>, Code, Options), String> {
    let expression = versions::as_before(expression);
    let (code, options) = accept(&expression, ignore_case)?;
    match settings::without(&expression) {
        Some(rest) => accept(&rest, ignore_case).map(|(code, options)| (Cow::Owned(rest), code, options)),
        None => Ok((expression, code, options)),
    }
}

/// Compiles the expression as HAProxy compiles what it only tests.
fn accept(expression: &str, ignore_case: bool) -> Result<(Code, Options), String> {
    let mut options = Options { ignore_case, named_groups_only: true, callouts: false };
    let mut code = Code::compile(expression, options);
    if code.as_ref().is_err_and(CompileError::is_missing_group) {
        // Back to a group without a name: HAProxy refuses that, Octavia does not, and there is but one meaning.
        options.named_groups_only = false;
        code = Code::compile(expression, options);
    }
    match code {
        Ok(code) => Ok((code, options)),
        Err(error) => Err(format!("not a valid regular expression: {error}")),
    }
}

/// The expression without backtracking, if it is worth its work.
fn automaton(expression: &str, ignore_case: bool, work: &mut Work) -> Option<Program> {
    if work.left() == 0 {
        return None;
    }
    let hir = parse(&translate::translate(expression)?, ignore_case)?;
    match Literals::of(&hir) {
        Some(literals) => Some(Program::Literals(literals)),
        None => Dfa::compile(&hir, work).map(|dfa| Program::Dfa(Box::new(dfa))),
    }
}

fn parse(translated: &str, ignore_case: bool) -> Option<Hir> {
    ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .case_insensitive(ignore_case)
        .build()
        .parse(translated)
        .ok()
}

fn interpreted(expression: &str, options: Options, code: Code) -> Program {
    match Code::compile(expression, Options { callouts: true, ..options }) {
        Ok(steps) => Program::Steps(steps),
        Err(_) => Program::Attempts(code),
    }
}

thread_local! {
    /// The worker's interpreter.
    static INTERPRETER: RefCell<Option<Interpreter>> = const { RefCell::new(None) };
}

fn backtrack<T: Default>(
    allowance: &mut Allowance,
    search: impl FnOnce(&mut Interpreter, &mut Allowance) -> Result<T, Stopped>,
) -> T {
    if !allowance.charge(STEP, Share::Backtracking) {
        return T::default();
    }
    INTERPRETER.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Interpreter::new(HEAP_LIMIT);
        }
        let found = kept.as_mut().map_or(Err(Stopped::Other), |interpreter| search(interpreter, allowance));
        if kept.as_ref().is_some_and(|interpreter| interpreter.heap() > HEAP_KEPT) {
            *kept = None;
        }
        found.unwrap_or_else(|_| {
            allowance.exceed();
            T::default()
        })
    })
}

/// One attempt after another at each place, with limits on backtracking points that grow while time is left: between two
/// of those points at most the expression and the subject are looked through once.
fn attempts(
    interpreter: &mut Interpreter,
    code: &Code,
    subject: &[u8],
    allowance: &mut Allowance,
) -> Result<bool, Stopped> {
    for start in 0..=subject.len() {
        let mut limit = FIRST_LIMIT;
        loop {
            if !allowance.charge(STEP + subject.len(), Share::Backtracking) {
                return Err(Stopped::Other);
            }
            match interpreter.is_match(code, subject, Attempt::At(start, limit), || true) {
                Ok(true) => return Ok(true),
                Ok(false) => break,
                Err(Stopped::MatchLimit) => {}
                Err(Stopped::Other) => return Err(Stopped::Other),
            }
            let before = allowance.left();
            allowance.measure();
            // The next attempt repeats this one, and goes on as far again.
            let took = before.saturating_sub(allowance.left());
            if took * 4 > allowance.left() {
                return Err(Stopped::Other);
            }
            limit *= 2;
        }
    }
    Ok(false)
}
