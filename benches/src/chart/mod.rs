//! Pictures of what was measured: grouped horizontal bars with their ranges, as SVG, for pages and for `img` in them.
//!
//! Each bar has a line of its own with its name and its numbers in words, so that neither many bars nor long names
//! come over each other, and colours only help. The same numbers give the same bytes. Colours follow the reader's
//! light or dark scheme, with a background of the picture's own.

mod scale;
mod text;

use std::fmt::{self, Write};

pub use self::text::escape;
use self::{
    scale::Scale,
    text::{fit, number, width, wrap},
};
use crate::report::Summary;

/// All of a picture.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// Lines below the title: what bars and whiskers are, what it was measured on.
    pub notes: Vec<String>,
    /// What has an axis of its own each, from top to bottom.
    pub panels: Vec<Panel>,
}

/// Groups of bars on one axis.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What the axis shows, with its unit.
    pub caption: String,
    /// How values become lengths.
    pub axis: Axis,
    /// What stands at a value of the axis.
    pub tick: fn(f64) -> String,
    /// From top to bottom.
    pub groups: Vec<Group>,
}

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// From zero.
    Linear,
    /// By powers of ten, for values that differ by orders. What is not above zero has no length.
    Logarithmic,
}

/// Bars that are to be compared.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they have in common.
    pub name: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// A value and its range.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Whose it is. The same name has the same colour in all groups.
    pub name: String,
    /// The bar ends at the median, a whisker reaches from the smallest to the largest. `None`: there is nothing to show.
    pub range: Option<Summary>,
    /// The same in words.
    pub label: String,
}

/// Whole picture, margin, and what stands between names, bars and labels, in pixels of the picture's own size.
const WIDTH: f64 = 800.0;
const MARGIN: f64 = 24.0;
const GAP: f64 = 8.0;
/// The most that names and labels get of the width. Longer ones end in an ellipsis.
const NAMES: f64 = 200.0;
const LABELS: f64 = 260.0;
/// A bar, and the line that it stands in.
const BAR: f64 = 16.0;
const LINE: f64 = 23.0;
/// Sizes of letters.
const TITLE: f64 = 19.0;
const HEADING: f64 = 14.5;
const TEXT: f64 = 13.5;
const SMALL: f64 = 12.5;

/// Colours in the light scheme and in the dark one. The bars' are told apart with any colour vision as far as eight can be.
const PAPER: (&str, &str) = ("#ffffff", "#0d1117");
const INK: (&str, &str) = ("#1f2328", "#e6edf3");
const FAINT: (&str, &str) = ("#59636e", "#9198a1");
const GRID: (&str, &str) = ("#d1d9e0", "#3d444d");
const BARS: [(&str, &str); 8] = [
    ("#0969da", "#4493f8"),
    ("#d4731a", "#f0993e"),
    ("#1a7f5a", "#3fb98f"),
    ("#a3478f", "#d886c9"),
    ("#a88b00", "#d9c04a"),
    ("#4ba3d1", "#8cc8ee"),
    ("#c23b22", "#f47067"),
    ("#6e7781", "#b1bac4"),
];

impl Chart {
    /// As a document of SVG 1.1 with CSS.
    pub fn svg(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for bar in self.bars() {
            if !names.contains(&bar.name.as_str()) {
                names.push(&bar.name);
            }
        }
        let mut drawing = Drawing { body: String::new(), y: MARGIN, names };
        // Writing to a `String` does not fail.
        let _ = self.draw(&mut drawing);
        let height = drawing.y + MARGIN;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-labelledby=\"title description\">\n\
             <title id=\"title\">{}</title>\n<desc id=\"description\">{}</desc>\n<style>\n{}</style>\n",
            escape(&self.title),
            escape(&self.describe()),
            style(),
        );
        let _ = writeln!(
            svg,
            "<rect class=\"paper frame\" x=\"0.5\" y=\"0.5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"8\"/>",
            WIDTH - 1.0,
            height.round() - 1.0
        );
        svg + &drawing.body + "</svg>\n"
    }

    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.panels.iter().flat_map(|panel| &panel.groups).flat_map(|group| &group.bars)
    }

    /// All of it in words, for those who do not see it.
    fn describe(&self) -> String {
        let mut words = self.notes.join(" ");
        for panel in &self.panels {
            for group in &panel.groups {
                let bars: Vec<String> =
                    group.bars.iter().map(|bar| format!("{} {}", bar.name, bar.label)).collect();
                let _ = write!(words, "\n{} ({}): {}.", group.name, panel.caption, bars.join("; "));
            }
        }
        words
    }

    fn draw(&self, to: &mut Drawing<'_>) -> fmt::Result {
        to.lines(&self.title, "ink title", TITLE)?;
        for note in &self.notes {
            to.lines(note, "faint small", SMALL)?;
        }
        let longest = |of: fn(&Bar) -> &str| self.bars().map(|bar| width(of(bar), TEXT)).fold(0.0, f64::max);
        let left = MARGIN + longest(|bar| &bar.name).min(NAMES) + GAP;
        let right = WIDTH - MARGIN - longest(|bar| &bar.label).min(LABELS) - GAP;
        for panel in &self.panels {
            to.y += 14.0;
            panel.draw(to, left, right)?;
        }
        Ok(())
    }
}

impl Panel {
    fn draw(&self, to: &mut Drawing<'_>, left: f64, right: f64) -> fmt::Result {
        let ranges = self.groups.iter().flat_map(|group| &group.bars).filter_map(Bar::drawn);
        let scale = Scale::of(self.axis, ranges, left, right);
        to.lines(&self.caption, "faint small", SMALL)?;
        // What is drawn first is below: the grid, whose height is known at the end.
        let body = std::mem::take(&mut to.body);
        let top = to.y + 4.0;
        for group in &self.groups {
            to.y += 6.0;
            to.lines(&group.name, "ink heading label", HEADING)?;
            to.y += 4.0;
            for bar in &group.bars {
                bar.draw(to, &scale, left)?;
            }
        }
        let drawn = std::mem::replace(&mut to.body, body);
        to.y += 4.0;
        for (value, x) in scale.ticks(|value| width(&(self.tick)(value), SMALL) + 2.0 * GAP) {
            let y = to.y;
            writeln!(to.body, "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{y:.1}\"/>")?;
            let text = fit(&(self.tick)(value), SMALL, (right - left) / 2.0);
            to.text(&text, x, to.y + SMALL + 4.0, "faint small middle")?;
        }
        to.body += &drawn;
        to.y += SMALL + 8.0;
        Ok(())
    }
}

impl Bar {
    /// What can be drawn of it.
    fn drawn(&self) -> Option<Summary> {
        self.range.filter(|r| [r.median, r.min, r.max].iter().all(|v| v.is_finite()))
    }

    fn draw(&self, to: &mut Drawing<'_>, scale: &Scale, left: f64) -> fmt::Result {
        let top = to.y + (LINE - BAR) / 2.0;
        let baseline = to.y + LINE / 2.0 + TEXT * 0.35;
        let colour = to.names.iter().position(|name| *name == self.name).unwrap_or(0) % BARS.len();
        writeln!(to.body, "<g><title>{}: {}</title>", escape(&self.name), escape(&self.label))?;
        to.text(&fit(&self.name, TEXT, NAMES), left - GAP, baseline, "ink text end")?;
        let mut end = left;
        if let Some(range) = self.drawn() {
            let [median, min, max] = [range.median, range.min, range.max].map(|value| scale.x(value));
            end = median.max(max);
            writeln!(
                to.body,
                "<rect class=\"bar{colour}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR:.0}\" rx=\"2\"/>",
                median - left
            )?;
            if max - min >= 1.0 {
                let middle = top + BAR / 2.0;
                let (above, below) = (middle - 4.0, middle + 4.0);
                writeln!(
                    to.body,
                    "<path class=\"whisker\" d=\"M{min:.1} {middle:.1}H{max:.1}M{min:.1} {above:.1}V{below:.1}M{max:.1} {above:.1}V{below:.1}\"/>"
                )?;
            }
        }
        to.text(&fit(&self.label, TEXT, LABELS), end + GAP, baseline, "ink text label")?;
        to.body.push_str("</g>\n");
        to.y += LINE;
        Ok(())
    }
}

/// What is drawn, and how far down.
struct Drawing<'a> {
    body: String,
    y: f64,
    /// Names of bars, by the number of their colour.
    names: Vec<&'a str>,
}

impl Drawing<'_> {
    fn text(&mut self, text: &str, x: f64, baseline: f64, class: &str) -> fmt::Result {
        writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{baseline:.1}\">{}</text>",
            escape(text)
        )
    }

    /// Text of the whole width, in as many lines as it takes.
    fn lines(&mut self, text: &str, class: &str, size: f64) -> fmt::Result {
        let bold = if size >= HEADING { 1.12 } else { 1.0 };
        for line in wrap(text, size * bold, WIDTH - 2.0 * MARGIN) {
            self.text(&line, MARGIN, self.y + size, class)?;
            self.y += size * 1.4;
        }
        Ok(())
    }
}

/// The style sheet: light, and dark for those who prefer it.
fn style() -> String {
    let mut css = format!(
        "text{{font-family:system-ui,-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif}}\n\
         .title{{font-size:{TITLE}px;font-weight:600}}.heading{{font-size:{HEADING}px;font-weight:600}}\n\
         .text{{font-size:{TEXT}px}}.small{{font-size:{SMALL}px}}.end{{text-anchor:end}}.middle{{text-anchor:middle}}\n\
         .label{{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}}.whisker{{fill:none;stroke-width:1.5px}}\n"
    );
    let colours = |pick: fn((&'static str, &'static str)) -> &'static str| {
        let mut css = format!(
            ".paper{{fill:{0}}}.label{{stroke:{0}}}.ink{{fill:{1}}}.whisker{{stroke:{1}}}.faint{{fill:{2}}}.grid,.frame{{stroke:{3}}}\n",
            pick(PAPER),
            pick(INK),
            pick(FAINT),
            pick(GRID)
        );
        for (n, colour) in BARS.into_iter().enumerate() {
            let _ = write!(css, ".bar{n}{{fill:{}}}", pick(colour));
        }
        css.push('\n');
        css
    };
    css += &colours(|(light, _)| light);
    let _ = writeln!(css, "@media (prefers-color-scheme:dark){{\n{}}}", colours(|(_, dark)| dark));
    css
}

/// A value of an axis without a unit.
pub fn plain(value: f64) -> String {
    number(value)
}

/// A value in milliseconds, from a second on in seconds.
pub fn milliseconds(value: f64) -> String {
    if value.abs() < 1000.0 {
        format!("{} ms", number(value))
    } else {
        format!("{} s", number(value / 1000.0))
    }
}

#[cfg(test)]
mod tests;
