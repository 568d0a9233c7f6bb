//! Medians, spread, ratios, Markdown.

use std::fmt::Write;

/// Median and range of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The median; of an even number of values the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// `None` without values. Values that are no numbers are left out.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }

    /// `median (min–max)` with three significant digits, or the median alone when that is all there is.
    pub fn show(&self) -> String {
        let (median, min, max) = (digits(self.median), digits(self.min), digits(self.max));
        if min == max { median } else { format!("{median} ({min}–{max})") }
    }
}

/// [`Summary::show`], or a dash.
pub fn show(summary: Option<Summary>) -> String {
    summary.map_or_else(|| "–".into(), |s| s.show())
}

/// At least three significant digits, no exponent.
pub fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A Markdown table; the first column is text, the others are numbers.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let row: Vec<String> = cells.into_iter().map(Into::into).collect();
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// As Markdown that also reads well as plain text.
    pub fn markdown(&self) -> String {
        let width = |i: usize| {
            let cells = self.rows.iter().map(|r| r[i].chars().count());
            cells.chain([self.columns[i].chars().count(), 4]).max().unwrap_or(4)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (left, right) = if i == 0 { ("", &*fill) } else { (&*fill, "") };
                let _ = write!(text, "| {left}{cell}{right} ");
            }
            text.push_str("|\n");
        };
        line(&self.columns);
        let rule = |(i, &w): (usize, &usize)| {
            if i == 0 { "-".repeat(w) } else { format!("{}:", "-".repeat(w - 1)) }
        };
        line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
        for row in &self.rows {
            line(row);
        }
        text
    }
}

/// What the numbers were taken on: kernel, CPU, cores.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split(": ").nth(1));
    format!(
        "Linux {}, {} ({} cores)",
        read("/proc/sys/kernel/osrelease").trim(),
        model.unwrap_or("unknown CPU"),
        cpuinfo.lines().filter(|l| l.starts_with("processor")).count(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Summary::of([4.0, 1.0, f64::NAN]).unwrap().median, 2.5);
        assert_eq!(Summary::of([4.0, 1.0, 2.0]).unwrap().show(), "2.00 (1.00–4.00)");
        assert_eq!(Summary::of([0.61234]).unwrap().show(), "0.612");
        assert_eq!(show(None), "–");
    }

    #[test]
    fn tables_align() {
        let mut table = Table::new(["proxy", "µs"]);
        table.row(["nginx", "12.5"]);
        assert_eq!(table.markdown(), "| proxy |   µs |\n| ----- | ---: |\n| nginx | 12.5 |\n");
    }
}
