//! `acl`: a rule of an L7 policy.

use amphora_model::{CompareType, L7Rule, L7RuleId, L7Subject};

use super::{Fault, args::Args};

/// Reads what is behind `acl`: `<rule> <fetch> [-i] [-m <how>] <value>`.
///
/// The value is the one word that is left, also when it begins with a hyphen, which HAProxy would take for an option.
pub(super) fn read(args: &mut Args<'_, '_>) -> Result<L7Rule, Fault> {
    let id: L7RuleId = args.parsed("the id of a rule")?;
    let fetch = args.plain("what is looked at")?;
    let (name, key) = match fetch.split_once('(') {
        None => (fetch.as_ref(), None),
        Some((name, rest)) => {
            let key =
                rest.strip_suffix(')').ok_or_else(|| args.fault("has no ) at the end of its second word"))?;
            (name, Some(key.to_owned()))
        }
    };
    let insensitive = args.left() > 1 && args.take("-i");
    let subject = match (name, key) {
        ("req.hdr", Some(key)) if insensitive && key == "host" => L7Subject::HostName,
        (_, _) if insensitive => return Err(args.fault("ignores case, which is for req.hdr(host) only")),
        ("req.hdr", Some(key)) => L7Subject::Header(key),
        ("req.cook", Some(key)) => L7Subject::Cookie(key),
        ("ssl_c_s_dn", Some(key)) => L7Subject::SslDnField(key),
        ("path", None) => L7Subject::Path,
        ("path_end", None) => L7Subject::FileType,
        ("ssl_c_used", None) => L7Subject::SslConnHasCert,
        ("ssl_c_verify", None) => L7Subject::SslVerifyResult,
        _ => return Err(args.fault(format!("looks at what no rule does: {}", super::args::short(&fetch)))),
    };
    let (compare, value) = match subject {
        L7Subject::SslConnHasCert => (CompareType::EqualTo, "True".to_owned()),
        L7Subject::SslVerifyResult => {
            args.expect("eq")?;
            (CompareType::EqualTo, args.plain("a number")?.into_owned())
        }
        _ => {
            let compare = match args.left() {
                // Up to Octavia 16 it was `path_end -m str`, which in HAProxy compares the whole path.
                2.. => comparison(args)?,
                _ if subject == L7Subject::FileType => CompareType::EqualTo,
                _ => return Err(args.fault("does not say how to compare")),
            };
            if args.left() > 1 {
                args.take("--");
            }
            (compare, args.value("a value")?.into_owned())
        }
    };
    args.last(L7Rule { id, admin_state_up: true, invert: false, subject, compare, value })
}

/// `-m <how>`.
fn comparison(args: &mut Args<'_, '_>) -> Result<CompareType, Fault> {
    const ALL: [(&str, CompareType); 5] = [
        ("-m reg", CompareType::Regex),
        ("-m beg", CompareType::StartsWith),
        ("-m end", CompareType::EndsWith),
        ("-m sub", CompareType::Contains),
        ("-m str", CompareType::EqualTo),
    ];
    let found = ALL.into_iter().find(|(words, _)| args.take(words));
    found
        .map(|(_, compare)| compare)
        .ok_or_else(|| args.fault("compares in a way that is not known, or with several values"))
}
