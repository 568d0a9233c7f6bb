#![allow(clippy::unwrap_used)]

use roxmltree::{Document, Node};

use super::*;

fn bar(name: &str, median: f64, min: f64, max: f64) -> Bar {
    let range = Summary { median, min, max };
    Bar { name: name.into(), range: Some(range), label: range.show() }
}

fn chart(axis: Axis, groups: Vec<Group>) -> Chart {
    let panel = Panel { caption: "CPU µs".into(), axis, tick: plain, groups };
    Chart { title: "A title".into(), notes: vec!["A note.".into()], panels: vec![panel] }
}

fn group(name: &str, bars: Vec<Bar>) -> Group {
    Group { name: name.into(), bars }
}

fn of_class<'a>(svg: &'a Document<'_>, class: &str) -> Vec<Node<'a, 'a>> {
    let has =
        |node: &Node<'_, '_>| node.attribute("class").is_some_and(|c| c.split(' ').any(|word| word == class));
    svg.descendants().filter(has).collect()
}

fn attribute(node: &Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).unwrap().parse().unwrap()
}

/// Left, top, right and bottom of a text, by its class.
fn place(node: &Node<'_, '_>) -> [f64; 4] {
    let has = |class: &str| node.attribute("class").unwrap().split(' ').any(|word| word == class);
    let sizes = [("title", TITLE), ("heading", HEADING), ("text", TEXT), ("small", SMALL)];
    let size = sizes.into_iter().find(|(class, _)| has(class)).unwrap().1;
    let width = width(node.text().unwrap_or_default(), size);
    let before = if has("end") {
        width
    } else if has("middle") {
        width / 2.0
    } else {
        0.0
    };
    let (x, y) = (attribute(node, "x") - before, attribute(node, "y"));
    [x, y - 0.8 * size, x + width, y + 0.2 * size]
}

/// That it is XML, that all text is within it, and none over another.
fn is_legible(chart: &Chart) {
    let text = chart.svg();
    let svg = Document::parse(&text).unwrap();
    let root = svg.root_element();
    let (wide, high) = (attribute(&root, "width"), attribute(&root, "height"));
    let places: Vec<(&str, [f64; 4])> = svg
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")))
        .map(|node| (node.text().unwrap_or_default(), place(&node)))
        .collect();
    for (n, (text, a)) in places.iter().enumerate() {
        assert!(
            a[0] >= 0.0 && a[1] >= 0.0 && a[2] <= wide && a[3] <= high,
            "{text}: {a:?} in {wide} x {high}"
        );
        for (other, b) in &places[..n] {
            let apart = a[0] >= b[2] || b[0] >= a[2] || a[1] >= b[3] || b[1] >= a[3];
            assert!(apart, "{text} {a:?} over {other} {b:?}");
        }
    }
    for rect in svg.descendants().filter(|node| node.tag_name().name() == "rect") {
        let (x, width) = (attribute(&rect, "x"), attribute(&rect, "width"));
        assert!(x >= 0.0 && width >= 0.0 && x + width <= wide, "{rect:?}");
    }
}

#[test]
fn bars_are_as_long_as_what_they_show_and_whiskers_reach_around() {
    let bars =
        vec![bar("ours", 10.0, 9.0, 12.0), bar("theirs", 20.0, 20.0, 20.0), bar("last", 40.0, 30.0, 40.0)];
    let text = chart(Axis::Linear, vec![group("a cell", bars)]).svg();
    let svg = Document::parse(&text).unwrap();
    let long: Vec<f64> = (0..3).map(|n| attribute(&of_class(&svg, &format!("bar{n}"))[0], "width")).collect();
    assert!((long[1] / long[0] - 2.0).abs() < 0.01 && (long[2] / long[0] - 4.0).abs() < 0.01, "{long:?}");
    let whiskers = of_class(&svg, "whisker");
    assert_eq!(whiskers.len(), 2, "one value has no range");
    let left = attribute(&of_class(&svg, "bar0")[0], "x");
    let ends: Vec<f64> = whiskers[0]
        .attribute("d")
        .unwrap()
        .split(['M', 'H', ' ', 'V'])
        .filter_map(|word| word.parse().ok())
        .collect();
    assert!(
        (ends[0] - left - 0.9 * long[0]).abs() < 0.2 && (ends[2] - left - 1.2 * long[0]).abs() < 0.2,
        "{ends:?}"
    );
    let labels: Vec<_> =
        of_class(&svg, "label").iter().skip(1).map(|n| n.text().unwrap().to_owned()).collect();
    assert_eq!(labels, ["10.0 (9.00–12.0)", "20.0", "40.0 (30.0–40.0)"]);
}

#[test]
fn a_name_has_one_colour_and_every_number_is_told_in_words() {
    let cells = vec![
        group("first", vec![bar("ours", 1.0, 1.0, 1.0), bar("theirs", 2.0, 2.0, 2.0)]),
        group("second", vec![bar("theirs", 3.0, 3.0, 3.0)]),
    ];
    let chart = chart(Axis::Linear, cells);
    let text = chart.svg();
    let svg = Document::parse(&text).unwrap();
    assert_eq!((of_class(&svg, "bar0").len(), of_class(&svg, "bar1").len()), (1, 2));
    let described = svg.descendants().find(|n| n.attribute("id") == Some("description")).unwrap();
    assert_eq!(
        described.text().unwrap(),
        "A note.\nfirst (CPU µs): ours 1.00; theirs 2.00.\nsecond (CPU µs): theirs 3.00."
    );
    assert_eq!(svg.root_element().attribute("aria-labelledby"), Some("title description"));
    assert_eq!(text, chart.svg(), "the same numbers give the same bytes");
    assert!(text.contains("@media (prefers-color-scheme:dark)") && !text.contains("<script"));
}

#[test]
fn nothing_comes_over_another_however_much_there_is() {
    let long = "a proxy whose maker could not make up its mind what it is called, & <so> on \u{1}";
    for axis in [Axis::Linear, Axis::Logarithmic] {
        is_legible(&chart(axis, Vec::new()));
        is_legible(&chart(axis, vec![group("", Vec::new())]));
        is_legible(&chart(axis, vec![group("one", vec![bar("ours", 12.3, 12.0, 13.0)])]));
        let bars = |n: usize| {
            let names = [
                "ours",
                "HAProxy",
                "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW",
                long,
                "i",
                "漢字漢字",
                "g",
                "h",
                "i2",
                "j",
            ];
            let value = |n: usize| 10f64.powi(n as i32 * 3 - 9);
            names[..n]
                .iter()
                .enumerate()
                .map(|(i, name)| bar(name, value(i), value(i) / 7.0, value(i) * 900.0))
                .collect()
        };
        is_legible(&chart(axis, (1..=10).map(|n| group(&format!("{long} {n}"), bars(n))).collect()));
        let mut odd = vec![
            bar("zero", 0.0, 0.0, 0.0),
            bar("least", 5e-324, 0.0, 1.0),
            bar("most", f64::MAX, 1.0, f64::MAX),
        ];
        odd.push(bar("below", -3.0, -7.0, 2.0));
        odd.push(bar("no number", f64::NAN, 1.0, 2.0));
        odd.push(bar("endless", 1.0, 1.0, f64::INFINITY));
        odd.push(Bar { name: "none".into(), range: None, label: "not measured".into() });
        let mut chart = chart(axis, vec![group("odd", odd.clone())]);
        is_legible(&chart);
        chart.title = long.repeat(5);
        chart.notes = vec![long.repeat(9), String::new()];
        chart.panels.push(Panel { tick: milliseconds, ..chart.panels[0].clone() });
        is_legible(&chart);
    }
}

#[test]
fn times_are_told_in_what_is_usual() {
    assert_eq!(
        [0.1, 10.0, 999.0, 1000.0, 10_000.0].map(milliseconds),
        ["0.1 ms", "10 ms", "999 ms", "1 s", "10 s"]
    );
}
