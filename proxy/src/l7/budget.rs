//! What the regular expressions of one load balancer may cost, all of its listeners together.

use std::{collections::HashMap, sync::Arc};

use amphora_model::{CompareType, L7Policy, L7Subject, Listener, PathEdit, PoolId};

use super::{
    program::serves,
    regex::{Expression, Rewrite, Work},
};

/// Bytes that the compiled expressions of one load balancer may take, each counted once however many rules have it.
pub const MAX_EXPRESSION_BYTES: usize = 64 * 1024 * 1024;

/// Compiled expressions by their text and by whether ASCII case counts.
#[derive(Clone, Debug, Default)]
pub struct Expressions(HashMap<(bool, Box<str>), Arc<Expression>>, HashMap<Box<str>, Arc<Rewrite>>);

impl Expressions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len() + self.1.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }

    fn get(&self, key: &(bool, Box<str>)) -> Option<Arc<Expression>> {
        self.0.get(key).cloned()
    }
}

/// Passed through the compilation of every listener of a load balancer: equal expressions are compiled once, those that
/// run already not at all, and nothing is compiled once the bound is passed.
#[derive(Debug)]
pub struct Budget<'a> {
    known: &'a Expressions,
    compiled: Expressions,
    limit: usize,
    spent: usize,
    exceeded: bool,
    work: Work,
}

/// Why there is no expression.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It cannot be honoured.
    Expression(String),
    /// It is the one that does not fit any more.
    TooMuch,
    /// One before it did not fit: nothing is said of this one.
    Unread,
}

impl<'a> Budget<'a> {
    /// The whole budget of a load balancer. `known` are the expressions of the one that runs.
    pub fn new(known: &'a Expressions) -> Self {
        Self::of(MAX_EXPRESSION_BYTES, known)
    }

    pub(super) fn of(limit: usize, known: &'a Expressions) -> Self {
        Self {
            known,
            compiled: Expressions::default(),
            limit,
            spent: 0,
            exceeded: false,
            work: Work::default(),
        }
    }

    /// Bytes that the expressions so far take.
    pub fn spent(&self) -> usize {
        self.spent
    }

    /// Whether an expression did not fit: the load balancer is refused.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// The expressions that were asked for.
    pub fn into_expressions(self) -> Expressions {
        self.compiled
    }

    /// Pays for a listener whose program runs already and is not compiled again; `enabled_pool` as for
    /// [`L7Program::compile`](super::L7Program::compile).
    pub fn keep(&mut self, listener: &Listener, enabled_pool: impl Fn(PoolId) -> bool) {
        let compiled = |policy: &&L7Policy| policy.admin_state_up && serves(&policy.action, &enabled_pool);
        let policies = || listener.l7policies.iter().filter(compiled);
        for edits in policies().filter_map(|policy| policy.edits.as_deref()) {
            if let Some(PathEdit::Regex { regex, .. }) = &edits.path
                && self.known.1.contains_key(regex.as_str())
            {
                let _ = self.rewrite(regex);
            }
        }
        for rule in policies().flat_map(|policy| &policy.rules) {
            if rule.admin_state_up && rule.compare == CompareType::Regex {
                let ignore_case = rule.subject == L7Subject::HostName;
                if self.known.0.contains_key(&(ignore_case, Box::from(rule.value.as_str()))) {
                    // One that does not fit any more is told at the listener that has added to them.
                    let _ = self.expression(&rule.value, ignore_case);
                }
            }
        }
    }

    /// The compiled expression; see [`Expression::compile`].
    pub(super) fn expression(
        &mut self,
        pattern: &str,
        ignore_case: bool,
    ) -> Result<Arc<Expression>, Refused> {
        if self.exceeded {
            return Err(Refused::Unread);
        }
        let key = (ignore_case, Box::from(pattern));
        if let Some(expression) = self.compiled.get(&key) {
            return Ok(expression);
        }
        let expression = match self.known.get(&key) {
            Some(expression) => expression,
            None => Arc::new(
                Expression::compile(pattern, ignore_case, &mut self.work).map_err(Refused::Expression)?,
            ),
        };
        self.spend(expression.bytes() + pattern.len())?;
        self.compiled.0.insert(key, Arc::clone(&expression));
        Ok(expression)
    }

    /// One that paths are rewritten by.
    pub(super) fn rewrite(&mut self, pattern: &str) -> Result<Arc<Rewrite>, Refused> {
        if self.exceeded {
            return Err(Refused::Unread);
        }
        if let Some(rewrite) = self.compiled.1.get(pattern) {
            return Ok(Arc::clone(rewrite));
        }
        let rewrite = match self.known.1.get(pattern) {
            Some(rewrite) => Arc::clone(rewrite),
            None => Arc::new(Rewrite::compile(pattern).map_err(Refused::Expression)?),
        };
        self.spend(rewrite.bytes() + pattern.len())?;
        self.compiled.1.insert(pattern.into(), Arc::clone(&rewrite));
        Ok(rewrite)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Refused> {
        self.spent += bytes;
        if self.spent > self.limit {
            self.exceeded = true;
            return Err(Refused::TooMuch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn equal_expressions_are_compiled_once_and_those_that_run_not_at_all() {
        let none = Expressions::default();
        let mut budget = Budget::new(&none);
        let first = budget.expression("^/a[0-9]+$", false).unwrap();
        let spent = budget.spent();
        assert!(spent > 0);
        assert!(Arc::ptr_eq(&first, &budget.expression("^/a[0-9]+$", false).unwrap()));
        assert_eq!(budget.spent(), spent);
        assert!(!Arc::ptr_eq(&first, &budget.expression("^/a[0-9]+$", true).unwrap()), "case counts");
        let running = budget.into_expressions();
        assert_eq!(running.len(), 2);

        let mut next = Budget::new(&running);
        assert!(Arc::ptr_eq(&first, &next.expression("^/a[0-9]+$", false).unwrap()));
        assert_eq!(next.spent(), spent, "what runs is paid for again");
        assert_eq!(next.into_expressions().len(), 1, "what is not asked for goes");
    }

    #[test]
    fn work_is_shared_and_not_asked_again_for_what_runs() {
        let none = Expressions::default();
        let mut budget = Budget::new(&none);
        budget.work = Work::of(20_000);
        let backtrack: Vec<_> = (0..20)
            .map(|n| budget.expression(&format!("^/v[0-9]+/{n}$"), false).unwrap().backtracks())
            .collect();
        assert_eq!((backtrack[0], backtrack[19]), (false, true), "{backtrack:?}");
        assert!(backtrack.is_sorted(), "the first ones have tables: {backtrack:?}");
        assert_eq!(budget.work.left(), 0);
        let running = budget.into_expressions();
        let mut next = Budget::new(&running);
        let whole = next.work.left();
        assert!(!next.expression("^/v[0-9]+/0$", false).unwrap().backtracks());
        assert_eq!(next.work.left(), whole);
    }

    #[test]
    fn the_first_that_does_not_fit_is_told_and_nothing_after_it_is_compiled() {
        let none = Expressions::default();
        let each = {
            let mut budget = Budget::new(&none);
            budget.expression("^/path/0000$", false).unwrap();
            budget.spent()
        };
        let mut budget = Budget::of(3 * each + each / 2, &none);
        let outcomes: Vec<_> =
            (0..6).map(|n| budget.expression(&format!("^/path/{n:04}$"), false).err()).collect();
        let unread = || Some(Refused::Unread);
        assert_eq!(outcomes, [None, None, None, Some(Refused::TooMuch), unread(), unread()]);
        assert_eq!(budget.expression("(", false).err(), unread());
    }

    #[test]
    fn what_fits_exactly_fits() {
        let none = Expressions::default();
        assert!(none.is_empty());
        let mut budget = Budget::new(&none);
        budget.expression("^/path/0000$", false).unwrap();
        let each = budget.spent();
        assert_eq!((budget.limit, MAX_EXPRESSION_BYTES), (67_108_864, 67_108_864));
        for (limit, fits) in [(each - 1, false), (each, true)] {
            let mut budget = Budget::of(limit, &none);
            assert_eq!(budget.expression("^/path/0001$", false).is_ok(), fits);
            assert_eq!(budget.is_exceeded(), !fits);
            let compiled = budget.into_expressions();
            assert_eq!((compiled.len(), compiled.is_empty()), (usize::from(fits), !fits));
        }
        // The text is paid for as well.
        let mut budget = Budget::new(&none);
        let expression = budget.expression("^/path/0000$", false).unwrap();
        assert_eq!(budget.spent(), expression.bytes() + "^/path/0000$".len());
    }
}
