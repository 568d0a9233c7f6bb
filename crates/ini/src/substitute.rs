//! oslo.config's substitution: `$name`, `${name}`, `$section.name`; `$$` and `\$` are a dollar sign.

/// How deep one value may refer to another, which also ends a circle.
const DEPTH: usize = 16;

/// Replaces every reference in `value` by what `look_up` says of its name, and substitutes in that again.
/// A lone `$` stays.
///
/// # Errors
/// The name that is unknown, or that leads in a circle.
pub(crate) fn substitute(value: &str, look_up: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    expand(value, look_up, DEPTH)
}

fn expand(value: &str, look_up: &dyn Fn(&str) -> Option<String>, depth: usize) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("\\$").or_else(|| rest.strip_prefix("$$")) {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(rest) {
            let referred = look_up(name).ok_or_else(|| format!("${name} is not set"))?;
            let depth = depth.checked_sub(1).ok_or_else(|| format!("${name} refers to itself"))?;
            out.push_str(&expand(&referred, look_up, depth)?);
            rest = after;
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The name at the head of a text that starts with `$name` or `${name}`, and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('$')?;
    let (text, braced) = match text.strip_prefix('{') {
        Some(text) => (text, true),
        None => (text, false),
    };
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    if braced { after.strip_prefix('}').map(|after| (name, after)) } else { Some((name, after)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: &str) -> Result<String, String> {
        substitute(value, &|name| match name {
            "base" => Some("/var".to_owned()),
            "lib" => Some("$base/lib".to_owned()),
            "circle" => Some("$circle".to_owned()),
            "DEFAULT.x" => Some("1".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn references_are_replaced() {
        assert_eq!(run("${lib}s $base/x $DEFAULT.x"), Ok("/var/libs /var/x 1".to_owned()));
    }

    #[test]
    fn dollars_are_escaped() {
        assert_eq!(run(r"a$$b\$c$ $1 ${base x \n"), Ok(r"a$b$c$ $1 ${base x \n".to_owned()));
    }

    #[test]
    fn unknown_names_and_circles_are_errors() {
        assert_eq!(run("$nobody"), Err("$nobody is not set".to_owned()));
        assert_eq!(run("$circle"), Err("$circle refers to itself".to_owned()));
    }
}
