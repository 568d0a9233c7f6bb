//! Text: how wide it is at most, and how it fits.

/// At most so wide is `text` in the usual fonts without serifs, at `size` pixels. An estimate, since which font there
/// is the reader's browser knows: by classes of letters, of which DejaVu Sans and Verdana are among the widest.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(advance).sum::<f64>() * size
}

fn advance(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | 'f' | 't' | 'r' | ' ' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '('
        | ')' | '[' | ']' | '/' | '-' => 0.42,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 1.0,
        'A'..='Z' | '+' | '=' | '<' | '>' | '~' | '^' | '#' | '&' => 0.84,
        '\0'..='\x7f' | 'µ' | '–' => 0.66,
        _ => 1.1,
    }
}

/// `text`, or as much of it as is at most `room` wide with an ellipsis.
pub(super) fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut left = room - width("…", size);
    let kept = text.chars().take_while(|&c| {
        left -= advance(c) * size;
        left >= 0.0
    });
    kept.collect::<String>().trim_end().to_owned() + "…"
}

/// Lines of whole words, each at most `room` wide.
pub(super) fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if line.is_empty() || width(&longer, size) <= room {
            line = longer;
        } else {
            lines.push(std::mem::replace(&mut line, word.to_owned()));
        }
    }
    lines.push(line);
    lines.into_iter().filter(|line| !line.is_empty()).map(|line| fit(&line, size, room)).collect()
}

/// As short as it can be told with three digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.1e}");
    }
    let decimals = if size >= 100.0 {
        0
    } else if size >= 1.0 || size == 0.0 {
        2
    } else {
        6
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// As character data and in attributes of XML 1.0. What cannot be in XML at all is replaced.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'.. => out.push(c),
            _ => out.push('\u{fffd}'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_too_long_ends_in_an_ellipsis() {
        assert_eq!(fit("nginx", 10.0, 60.0), "nginx");
        let short = fit("a name that goes on and on", 10.0, 60.0);
        assert!(
            short.starts_with("a name") && short.ends_with('…') && width(&short, 10.0) <= 60.0,
            "{short}"
        );
        assert_eq!(fit("aaaa", 10.0, 1.0), "…");
    }

    #[test]
    fn words_are_kept_whole() {
        assert_eq!(wrap("one two  three", 10.0, 45.0), ["one two", "three"]);
        assert_eq!(wrap(" ", 10.0, 45.0), [""; 0]);
        assert!(wrap("a Donaudampfschiffahrt b", 10.0, 60.0).iter().all(|line| width(line, 10.0) <= 60.0));
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 5.0, 2.5, 0.25, 100.0, 1500.0, 0.0001, 1e7, 1e-9, -20.0].map(number);
        assert_eq!(shown, ["0", "5", "2.5", "0.25", "100", "1500", "0.0001", "1.0e7", "1.0e-9", "-20"]);
    }

    #[test]
    fn what_xml_cannot_have_is_escaped_or_replaced() {
        assert_eq!(escape("<a href=\"b\">&'\n"), "&lt;a href=&quot;b&quot;&gt;&amp;&#39;\n");
        assert_eq!(escape("\0\x1b[1m\u{fffe}é😀"), "\u{fffd}\u{fffd}[1m\u{fffd}é😀");
    }
}
