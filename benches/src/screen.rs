//! A terminal's screen as SVG: what a program drew over itself with plain ANSI, as the demo of `amphora-controller` does.
//!
//! Not a terminal: a frame is what stands between a move to the first line and the next clearing of all that is below,
//! written from top to bottom, with colours (ECMA-48 SGR) and no other moves.

use std::fmt::Write;

use crate::chart::escape;

/// To the first line; clears the rest of a line; clears what is below.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// A letter, and the line that it stands in, in pixels of the picture's own size. Letters of equal width have some 0.6 of
/// their size in all usual fonts; each run of text is told its width, so that columns stay where they are.
const SIZE: f64 = 13.0;
const CELL: f64 = 7.8;
const LINE: f64 = 17.5;
const MARGIN: f64 = 16.0;

/// Text of one look in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    column: usize,
    text: String,
    look: Look,
}

/// What SGR said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    bold: bool,
    dim: bool,
    /// 31 to 36.
    colour: Option<u8>,
}

/// The last whole frame of `output` that has `words` in it, if there is one.
pub fn last_frame<'a>(output: &'a str, words: &str) -> Option<&'a str> {
    let frames = output.split(HOME).skip(1).filter_map(|rest| Some(rest.split_once(CLEAR_BELOW)?.0));
    frames.filter(|frame| frame.contains(words)).last()
}

/// A frame as a picture, dark in any scheme. `title` says what it is to those who do not see it, the text follows.
pub fn svg(frame: &str, title: &str) -> String {
    let lines: Vec<Vec<Run>> = frame.lines().map(runs).collect();
    let columns = lines.iter().flatten().map(|run| run.column + run.text.chars().count()).max().unwrap_or(0);
    let width = (columns as f64 * CELL + 2.0 * MARGIN).ceil();
    let height = (lines.len() as f64 * LINE + 2.0 * MARGIN).ceil();
    let plain: Vec<String> = lines.iter().map(|runs| as_text(runs)).collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-labelledby=\"title description\">\n<title id=\"title\">{}</title>\n\
         <desc id=\"description\">{}</desc>\n<style>\n\
         text{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace;font-size:{SIZE}px;white-space:pre;fill:#e6edf3}}\n\
         .bold{{font-weight:700}}.dim{{fill:#9198a1}}.c31{{fill:#ff7b72}}.c32{{fill:#56d364}}.c33{{fill:#e3b341}}.c34{{fill:#79c0ff}}.c35{{fill:#d2a8ff}}.c36{{fill:#56d4dd}}\n\
         </style>\n<rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#0d1117\" stroke=\"#3d444d\"/>\n",
        escape(title),
        escape(&plain.join("\n")),
        width - 1.0,
        height - 1.0
    );
    for (n, runs) in lines.iter().enumerate() {
        for run in runs {
            // Writing to a `String` does not fail.
            let _ = run.draw(&mut svg, MARGIN + n as f64 * LINE);
        }
    }
    svg + "</svg>\n"
}

impl Run {
    fn draw(&self, svg: &mut String, top: f64) -> std::fmt::Result {
        let class = self.look.class();
        let (x, wide) = (MARGIN + self.column as f64 * CELL, self.text.chars().count() as f64 * CELL);
        // As what they are, whatever the font has for them.
        if self.text.chars().all(|c| c == '█') {
            return writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{:.1}\"/>",
                top + 3.0,
                LINE - 6.0
            );
        }
        writeln!(
            svg,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{wide:.1}\" xml:space=\"preserve\">{}</text>",
            top + LINE * 0.72,
            escape(&self.text)
        )
    }
}

impl Look {
    fn class(self) -> String {
        let colour = self.colour.map(|colour| format!("c{colour}"));
        let words = [self.bold.then(|| "bold".to_owned()), self.dim.then(|| "dim".to_owned()), colour];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// What a sequence of SGR makes of it. Parameters of other looks than there are here change nothing.
    fn after(self, parameters: &str) -> Self {
        parameters.split(';').fold(self, |look, parameter| match parameter.parse().unwrap_or(0) {
            0 => Self::default(),
            1 => Self { bold: true, ..look },
            2 => Self { dim: true, ..look },
            22 => Self { bold: false, dim: false, ..look },
            colour @ 31..=36 => Self { colour: Some(colour), ..look },
            39 => Self { colour: None, ..look },
            _ => look,
        })
    }
}

/// A line in runs of one look. Spaces end a run and are none, but for single ones between words; blocks are runs of their own.
fn runs(line: &str) -> Vec<Run> {
    let mut cells: Vec<(char, Look)> = Vec::new();
    let mut look = Look::default();
    let mut rest = line.trim_end_matches('\r');
    while let Some(c) = rest.chars().next() {
        if let Some(sequence) = rest.strip_prefix("\x1b[") {
            let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(sequence.len());
            let (parameters, after) = sequence.split_at(end);
            if after.starts_with('m') {
                look = look.after(parameters);
            }
            debug_assert!(after.starts_with('m') || rest.starts_with(CLEAR_LINE), "not of a frame: {rest:?}");
            rest = after.get(1..).unwrap_or_default();
        } else {
            cells.push((c, look));
            rest = &rest[c.len_utf8()..];
        }
    }
    let mut runs: Vec<Run> = Vec::new();
    for (column, &(c, look)) in cells.iter().enumerate() {
        let single = c == ' ' && cells.get(column + 1).is_some_and(|next| next.0 != ' ');
        if c == ' ' && !single {
            continue;
        }
        match runs.last_mut() {
            Some(run)
                if run.look == look
                    && run.column + run.text.chars().count() == column
                    && run.text.ends_with('█') == (c == '█') =>
            {
                run.text.push(c);
            }
            _ if c == ' ' => {}
            _ => runs.push(Run { column, text: c.into(), look }),
        }
    }
    runs
}

/// A line without its looks.
fn as_text(runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        let gap = run.column - text.chars().count();
        text.extend(std::iter::repeat_n(' ', gap));
        text += &run.text;
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use roxmltree::Document;

    use super::*;

    const FRAMES: &str = "before\x1b[?1049h\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J\x1b[H\x1b[1mdemo\x1b[0m  web-1 \x1b[32mONLINE\x1b[0m\x1b[K\r\n\
                          \x1b[32m██  \x1b[0m 1 <2>\x1b[K\x1b[J\x1b[Hthe last is torn\x1b[K";

    #[test]
    fn the_last_whole_frame_with_the_words_is_taken() {
        assert_eq!(last_frame(FRAMES, "two"), Some("one\x1b[K\r\ntwo\x1b[K"));
        assert!(last_frame(FRAMES, "").unwrap().contains("ONLINE"));
        assert_eq!(last_frame(FRAMES, "torn"), None);
        assert_eq!(last_frame("no screen", ""), None);
    }

    #[test]
    fn runs_keep_their_columns_and_looks() {
        let run = |column, text: &str, bold, colour| Run {
            column,
            text: text.into(),
            look: Look { bold, dim: false, colour },
        };
        assert_eq!(
            runs("\x1b[1mdemo\x1b[0m  web-1 is \x1b[32mONLINE\x1b[0m\x1b[K\r"),
            [
                run(0, "demo", true, None),
                run(6, "web-1 is ", false, None),
                run(15, "ONLINE", false, Some(32))
            ]
        );
        assert_eq!(
            runs("a█\x1b[32m██  \x1b[39mb"),
            [
                run(0, "a", false, None),
                run(1, "█", false, None),
                run(2, "██", false, Some(32)),
                run(6, "b", false, None)
            ]
        );
    }

    #[test]
    fn a_frame_is_xml_with_its_text() {
        let text = svg(last_frame(FRAMES, "").unwrap(), "The demo & more");
        let svg = Document::parse(&text).unwrap();
        let words: Vec<&str> =
            svg.descendants().filter(|n| n.tag_name().name() == "text").filter_map(|n| n.text()).collect();
        assert_eq!(words, ["demo", "web-1 ", "ONLINE", "1 <2>"]);
        let blocks: Vec<_> = svg.descendants().filter(|n| n.attribute("class") == Some("c32")).collect();
        assert!(blocks.iter().any(|n| n.tag_name().name() == "rect" && n.attribute("width") == Some("15.6")));
        let described = svg.descendants().find(|n| n.attribute("id") == Some("description")).unwrap();
        assert_eq!(described.text(), Some("demo  web-1 ONLINE\n██   1 <2>"));
    }
}
