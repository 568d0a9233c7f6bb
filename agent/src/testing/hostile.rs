//! Strings that a tenant may choose, to be taken for something else.

use amphora_model::LoadBalancer;

/// What strings are made of.
pub(crate) const PIECES: [&str; 44] = [
    "a", "B", "7", "é", " ", " ", "  ", "\\", "\\\\", "\"", "'", "#", "&", ";", "<", ">", "&amp;", "&#34;",
    "&#39;", "%", "%[src]", "$HOME", "{", "}", "(", ")", "!", "-", "--", "-i", "-m str", ",", "|", "=", "\n",
    "\r\n", "\t", "\0", "\u{85}", "\u{2028}", "/", "?", "if", "\\x41",
];

/// What objects are called, which no text has.
pub(crate) fn names(lb: &mut LoadBalancer) -> Vec<&mut String> {
    let mut names = vec![&mut lb.name];
    for listener in &mut lb.listeners {
        names.push(&mut listener.name);
        names.extend(listener.l7policies.iter_mut().map(|policy| &mut policy.name));
    }
    for pool in &mut lb.pools {
        names.push(&mut pool.name);
        names.extend(pool.members.iter_mut().map(|member| &mut member.name));
        names.extend(pool.health_monitor.iter_mut().map(|monitor| &mut monitor.name));
    }
    names
}
