//! Expressions that paths are rewritten by: as those of rules, but for the groups, which are asked for.

use super::{Allowance, BYTES_PER_UNIT, STEP, Share, backtrack, settings, versions};
use crate::sys::pcre2::{Code, Groups, Options};

/// A compiled expression, interpreted.
#[derive(Debug)]
pub(in crate::l7) struct Rewrite(Code);

impl Rewrite {
    /// The expression, or why it cannot be honoured.
    pub(in crate::l7) fn compile(expression: &str) -> Result<Self, String> {
        let expression = versions::as_before(expression);
        let plain = Options::default();
        let invalid = |error| format!("not a valid regular expression: {error}");
        Code::compile(&expression, plain).map_err(invalid)?;
        let rest = settings::without(&expression);
        let expression = rest.as_deref().unwrap_or(&expression);
        // The valid one may be too large with these.
        let code = Code::compile(expression, Options { callouts: true, ..plain });
        code.map(Self).map_err(|error| format!("cannot be interpreted within bounds: {error}"))
    }

    /// Bytes of memory that it takes.
    pub(in crate::l7) fn bytes(&self) -> usize {
        size_of::<Self>() + self.0.size()
    }

    /// How many groups it has, beside the whole.
    pub(in crate::l7) fn groups(&self) -> u32 {
        self.0.groups()
    }

    /// What its groups match in the subject, if it does and the allowance suffices to find it.
    pub(in crate::l7) fn find(&self, subject: &[u8], allowance: &mut Allowance) -> Option<Groups> {
        backtrack(allowance, |interpreter, allowance| {
            let units = STEP + subject.len() / BYTES_PER_UNIT;
            interpreter.find(&self.0, subject, || allowance.charge(units, Share::Backtracking))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(expression: &str, subject: &str) -> Option<Vec<Option<String>>> {
        let groups =
            Rewrite::compile(expression).unwrap().find(subject.as_bytes(), &mut Allowance::default())?;
        let mut groups: Vec<_> =
            groups.into_iter().map(|group| group.map(|group| subject[group].to_owned())).collect();
        while groups.last() == Some(&None) {
            groups.pop();
        }
        Some(groups)
    }

    #[test]
    fn groups_are_found() {
        let some = |groups: &[&str]| Some(groups.iter().map(|group| Some((*group).to_owned())).collect());
        assert_eq!(found("^/a/([^/]*)/(.*)$", "/a/b/c/d"), some(&["/a/b/c/d", "b", "c/d"]));
        assert_eq!(found("b", "/abc"), some(&["b"]));
        assert_eq!(found("(x)|(b)", "/abc"), Some(vec![Some("b".into()), None, Some("b".into())]));
        assert_eq!(found("^b", "/abc"), None);
        let eleven = "(.)".repeat(11);
        assert_eq!(found(&eleven, "0123456789a").unwrap().len(), 10);
        assert_eq!(found("a\\Kb", "ab").unwrap()[0], Some("b".into()));
        assert!(Rewrite::compile("(").is_err());
    }

    #[test]
    fn groups_are_numbered_as_pcre_numbers_them() {
        for (expression, groups) in [
            ("^/a", 0),
            ("(?:a)[(](b)\\(", 1),
            ("(a)|(b(c))", 3),
            ("(?|(a)|(b)(c))", 2),
            ("(?<name>a)(?#b)\\Q(c)\\E", 1),
            ("(?n)(a)", 0),
            ("(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)", 10),
        ] {
            let compiled = Rewrite::compile(expression);
            assert_eq!(compiled.unwrap().groups(), groups, "{expression}");
        }
    }

    #[test]
    fn what_would_take_too_long_rewrites_nothing() {
        let mut allowance = Allowance::default();
        let subject = format!("/{}!", "a".repeat(4000));
        let hard = Rewrite::compile("^/(a+)+(a+)+$").unwrap();
        assert_eq!(hard.find(subject.as_bytes(), &mut allowance), None);
        assert!(allowance.is_exceeded());
        assert_eq!(Rewrite::compile("^/").unwrap().find(b"/", &mut allowance), None);
    }
}
