//! How much there may be, and what it may cost.

use super::*;

#[test]
fn limits_are_kept() {
    let simple = || rule(L7Subject::Path, CompareType::EqualTo, "/");
    let many = (0..=MAX_POLICIES as u32).map(|n| policy(n, L7Action::Reject, vec![simple()])).collect();
    assert!(compile(many).unwrap_err()[0].reason.contains("4096"));
    let rules = vec![simple(); MAX_RULES_PER_POLICY + 1];
    assert!(compile(vec![policy(1, L7Action::Reject, rules)]).unwrap_err()[0].reason.contains("50"));
}

#[test]
fn limits_are_kept_to_the_last_one() {
    let simple = || rule(L7Subject::Path, CompareType::EqualTo, "/");
    let policies = |n: u32| (0..n).map(|n| policy(n, L7Action::Reject, vec![simple()])).collect();
    assert_eq!((compile(policies(4096)).is_ok(), compile(policies(4097)).is_ok()), (true, false));
    let rules = |n| compile(vec![policy(1, L7Action::Reject, vec![simple(); n])]).is_ok();
    assert_eq!((rules(50), rules(51)), (true, false));
    let value = |n| {
        compile(vec![policy(
            1,
            L7Action::Reject,
            vec![rule(L7Subject::Path, CompareType::EqualTo, &"x".repeat(n))],
        )])
    };
    assert_eq!((value(1020).is_ok(), value(1021).is_ok()), (true, false));
    let name = |name: &str| {
        let subject = L7Subject::Header(name.to_owned());
        compile(vec![policy(1, L7Action::Reject, vec![rule(subject, CompareType::EqualTo, "a")])]).is_ok()
    };
    assert_eq!((name(&"x".repeat(1020)), name(&"x".repeat(1021)), name("")), (true, false, false));
    for (url, taken) in
        [("", false), ("http://a", true), ("a\x7f", false), ("a b", false), ("a\tb", false), ("a!", true)]
    {
        assert_eq!(compile(vec![policy(1, redirect(url), vec![simple()])]).is_ok(), taken, "{url:?}");
    }
}

#[test]
fn listeners_share_what_expressions_may_cost() {
    let all_of = |from: u32| {
        let expression = |n| rule(L7Subject::Path, CompareType::Regex, &format!("^/path/{n:04}/[a-f]$"));
        listener((from..from + 40).map(|n| policy(n, L7Action::Reject, vec![expression(n)])).collect())
    };
    let none = Expressions::default();
    let compile = |listener: &Listener, budget: &mut Budget<'_>| {
        L7Program::compile(listener, |_| true, budget)
            .map_err(|faults| faults.into_iter().map(|fault| (fault.path, fault.reason)).collect::<Vec<_>>())
    };
    let mut budget = Budget::new(&none);
    compile(&all_of(1), &mut budget).unwrap();
    let one = budget.spent();

    let mut budget = Budget::of(2 * one - one / 80, &none);
    compile(&all_of(1), &mut budget).unwrap();
    compile(&all_of(1), &mut budget).unwrap();
    assert_eq!(budget.spent(), one, "the same again costs nothing");
    let second = all_of(101);
    let faults = compile(&second, &mut budget).unwrap_err();
    let last = second.l7policies.last().unwrap();
    let path = format!(
        "loadbalancer.listeners[{}].l7policies[{}].rules[{}].value",
        second.id, last.id, last.rules[0].id
    );
    assert_eq!(
        faults,
        [(
            path,
            "with this one the regular expressions of the load balancer take more than 64 MiB".to_owned()
        )]
    );
    assert_eq!(compile(&all_of(201), &mut budget).unwrap_err(), [], "one fault is enough");
}

#[test]
fn a_listener_that_stays_pays_for_what_it_has_compiled() {
    let regex = |value: &str| rule(L7Subject::Path, CompareType::Regex, value);
    let off = |rule: L7Rule| L7Rule { admin_state_up: false, ..rule };
    let host = L7Rule { subject: L7Subject::HostName, ..regex("^/a[0-9]+$") };
    let runs =
        listener(vec![policy(1, L7Action::Reject, vec![regex("^/a[0-9]+$"), host, regex("^/b[0-9]+$")])]);
    let none = Expressions::default();
    let mut budget = Budget::new(&none);
    L7Program::compile(&runs, |_| true, &mut budget).unwrap();
    let (whole, known) = (budget.spent(), budget.into_expressions());
    assert_eq!(known.len(), 3);
    let spent = |kept: &Listener| {
        let mut budget = Budget::new(&known);
        budget.keep(kept, |id| id != pool(13));
        (budget.spent(), budget.into_expressions().len())
    };
    assert_eq!(spent(&runs), (whole, 3));
    // What is left out of a program, what is no expression, and what was never compiled costs nothing.
    let disabled =
        L7Policy { admin_state_up: false, ..policy(1, L7Action::Reject, vec![regex("^/a[0-9]+$")]) };
    let unserved = policy(2, L7Action::RedirectToPool(pool(13)), vec![regex("^/a[0-9]+$")]);
    let served = policy(3, L7Action::RedirectToPool(pool(1)), vec![off(regex("^/a[0-9]+$"))]);
    let others = vec![rule(L7Subject::Path, CompareType::EqualTo, "^/a[0-9]+$"), regex("^/c[0-9]+$")];
    assert_eq!(
        spent(&listener(vec![disabled, unserved, served, policy(4, L7Action::Reject, others)])),
        (0, 0)
    );
    let one = spent(&listener(vec![policy(3, L7Action::RedirectToPool(pool(1)), vec![regex("^/b[0-9]+$")])]));
    assert!(one.0 > 0 && one.0 < whole && one.1 == 1, "{one:?}");
}
