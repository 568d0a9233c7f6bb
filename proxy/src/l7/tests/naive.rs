//! The program against a naive evaluator that follows HAProxy's description word by word.

use proptest::prelude::*;

use super::*;

/// Follows the configuration manual: all values, split and copied, policy by policy.
fn naive(policies: &[L7Policy], request: &Request) -> Option<usize> {
    let stage = |action: &L7Action| match action {
        L7Action::Reject | L7Action::Answer(_) => 0,
        L7Action::RedirectToUrl { .. } | L7Action::RedirectPrefix { .. } => 1,
        L7Action::RedirectToPool(_) | L7Action::RedirectToPools(_) | L7Action::Edit => 2,
    };
    let values = |name: &str| -> Vec<String> {
        request
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(',').map(|v| v.trim().to_owned()))
            .collect()
    };
    let samples = |subject: &L7Subject| -> Vec<String> {
        match subject {
            L7Subject::HostName => values("host").iter().map(|v| v.to_ascii_lowercase()).collect(),
            L7Subject::Header(name) => values(name),
            L7Subject::Cookie(name) => values("cookie")
                .iter()
                .flat_map(|field| field.split(';').map(str::to_owned).collect::<Vec<_>>())
                .filter_map(|pair| {
                    let (n, value) = pair.split_once('=')?;
                    (n.trim() == name).then(|| value.trim().to_owned())
                })
                .collect(),
            L7Subject::Path | L7Subject::FileType if request.target.is_empty() => Vec::new(),
            L7Subject::Path | L7Subject::FileType => {
                vec![request.target.split('?').next().unwrap().to_owned()]
            }
            // A plain connection has no certificate.
            L7Subject::SslConnHasCert | L7Subject::SslVerifyResult | L7Subject::SslDnField(_) => Vec::new(),
        }
    };
    let holds = |rule: &L7Rule| {
        let value = if rule.subject == L7Subject::HostName {
            rule.value.to_ascii_lowercase()
        } else {
            rule.value.clone()
        };
        let matched = samples(&rule.subject).iter().any(|sample| match (&rule.compare, &rule.subject) {
            (CompareType::EqualTo, L7Subject::FileType) | (CompareType::EndsWith, _) => {
                sample.ends_with(&value)
            }
            (CompareType::EqualTo, _) => *sample == value,
            (CompareType::StartsWith, _) => sample.starts_with(&value),
            (CompareType::Contains, _) => sample.contains(&value),
            (CompareType::Regex, _) => ::regex::Regex::new(&value).unwrap().is_match(sample),
        });
        matched != rule.invert
    };
    let mut order: Vec<usize> = (0..policies.len()).collect();
    order.sort_by_key(|at| (stage(&policies[*at].action), policies[*at].position));
    order.into_iter().find(|at| {
        let policy = &policies[*at];
        let mut enabled = policy.rules.iter().filter(|rule| rule.admin_state_up).peekable();
        let skipped = !policy.admin_state_up || policy.action == L7Action::RedirectToPool(pool(13));
        !skipped && enabled.peek().is_some() && enabled.all(holds)
    })
}

fn any_subject() -> impl Strategy<Value = L7Subject> {
    prop_oneof![
        Just(L7Subject::HostName),
        Just(L7Subject::Path),
        Just(L7Subject::FileType),
        "(X-A|x-b|Host|Cookie)".prop_map(L7Subject::Header),
        "[ab]".prop_map(L7Subject::Cookie),
    ]
}

fn any_rule() -> impl Strategy<Value = L7Rule> {
    (any_subject(), 0..5usize, "/?[abA.]{1,3}", any::<bool>(), 0..10u8).prop_map(
        |(subject, compare, value, invert, off)| {
            let compare = match (CompareType::ALL[compare], &subject) {
                (CompareType::Regex, _) => CompareType::Regex,
                (_, L7Subject::FileType) => CompareType::EqualTo,
                (other, _) => other,
            };
            L7Rule {
                invert: invert && off % 2 == 0,
                admin_state_up: off != 0,
                ..rule(subject, compare, &value)
            }
        },
    )
}

fn any_policy() -> impl Strategy<Value = L7Policy> {
    let action = prop_oneof![
        Just(L7Action::Reject),
        (0..14u128).prop_map(|n| L7Action::RedirectToPool(pool(n))),
        Just(redirect("http://r/")),
    ];
    (action, 0..100u32, prop::collection::vec(any_rule(), 0..4), 0..10u8).prop_map(
        |(action, position, rules, off)| L7Policy {
            admin_state_up: off != 0,
            ..policy(position, action, rules)
        },
    )
}

fn any_request() -> impl Strategy<Value = Request> {
    let header = prop_oneof![
        ("(host|Host|HOST)", "[abA.]{0,4}"),
        ("(x-a|X-A|X-B|x-c)", "[ab.A]{0,3}( ?, ?[ab.]{0,3}){0,3}"),
        ("(cookie|Cookie)", "[ab]=[ab.A]{1,3}(; [abc]=[ab.]{1,3}){0,3}"),
    ];
    ("(/[abA./]{0,4}(\\?[ab/]{0,3})?)?", prop::collection::vec(header, 0..6))
        .prop_map(|(target, headers)| Request { target, headers })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_program_agrees_with_the_naive_evaluator(
        mut policies in prop_oneof![
            prop::collection::vec(any_policy(), 0..6),
            prop::collection::vec(any_policy(), 20..150),
        ],
        requests in prop::collection::vec(any_request(), 1..8),
    ) {
        // Each policy answers with a code or pool of its own, so that outcomes tell them apart.
        for (number, policy) in policies.iter_mut().enumerate() {
            match &mut policy.action {
                L7Action::RedirectToUrl { url, .. } => *url = format!("http://{number}/"),
                L7Action::RedirectToPool(id) if *id != pool(13) => *id = pool(1000 + number as u128),
                _ => {}
            }
        }
        let program = compile(policies.clone()).unwrap();
        let mut scratch = Scratch::new();
        for request in &requests {
            let expected = naive(&policies, request).map(|at| &policies[at].action);
            let agrees = match (program.evaluate(request, &mut scratch), expected) {
                (Outcome::Pass, None) | (Outcome::Reject, Some(L7Action::Reject)) => true,
                (Outcome::Pool(a), Some(L7Action::RedirectToPool(b))) => a == *b,
                (Outcome::Redirect { location, .. }, Some(L7Action::RedirectToUrl { url, .. })) => {
                    location == Location::Url(url)
                }
                _ => false,
            };
            prop_assert!(agrees, "{:?} for {:?} {:?}", expected, request.target, request.headers);
        }
    }
}
