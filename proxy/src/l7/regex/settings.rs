//! Settings that an expression may begin with.

/// Those that HAProxy compiles and does not follow, for it runs PCRE2's code for the machine directly: where that code looks at
/// them at all (the match limit), it counts differently. What an expression may cost is bounded in any case.
const WITHOUT_EFFECT: [&str; 6] =
    ["NOTEMPTY", "NOTEMPTY_ATSTART", "LIMIT_DEPTH", "LIMIT_HEAP", "LIMIT_MATCH", "LIMIT_RECURSION"];

/// An expression that PCRE2 takes, without these settings; `None` when it has none of them.
pub(super) fn without(expression: &str) -> Option<String> {
    let mut kept = String::new();
    let mut rest = expression;
    // Verbs that are no settings may follow, but no setting behind them.
    while let Some((setting, behind)) = rest.strip_prefix("(*").and_then(|rest| rest.split_once(')')) {
        let name = setting.split_once('=').map_or(setting, |(name, _)| name);
        if !WITHOUT_EFFECT.contains(&name) {
            kept.push_str(&rest[..rest.len() - behind.len()]);
        }
        rest = behind;
    }
    kept.push_str(rest);
    (kept.len() < expression.len()).then_some(kept)
}
