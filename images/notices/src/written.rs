//! What is written: each text once, before it those whose it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::Library;

/// A licence's text without the names, and who is under it.
#[derive(Default)]
struct Group {
    text: String,
    /// By library, whose copyright.
    holders: BTreeMap<String, BTreeSet<String>>,
}

/// All of it. Libraries in any order give the same text.
pub(crate) fn notices(packages: &[String], libraries: Vec<Library>) -> String {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for Library { name, version, licence, texts } in &libraries {
        for text in texts {
            let (holders, text) = parted(text);
            // However it is set in lines.
            let group = groups.entry(words(&text)).or_default();
            if group.text.is_empty() || text < group.text {
                group.text = text;
            }
            group.holders.entry(format!("{name} {version} ({licence})")).or_default().extend(holders);
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| {
        b.holders.len().cmp(&a.holders.len()).then_with(|| a.holders.keys().cmp(b.holders.keys()))
    });
    let mut out = format!(
        "Libraries that are linked into {}, and their licences. Where a library may be had under several, it is had\n\
         under the one whose text is here.\n",
        packages.join(", ")
    );
    for Group { text, holders } in groups {
        // Writing to a `String` does not fail.
        let _ = writeln!(out, "\n{}\n", "=".repeat(80));
        for (library, holders) in holders {
            let _ = writeln!(out, "{library}");
            holders.iter().for_each(|holder| {
                let _ = writeln!(out, "    {holder}");
            });
        }
        let _ = writeln!(out, "\n{text}");
    }
    out
}

/// A text's own holders of copyright, and the rest of it. What says more of them than a few lines at its beginning is left whole.
fn parted(text: &str) -> (Vec<String>, String) {
    let text = text.replace("\r\n", "\n");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let is_holder = |line: &str| {
        let line = line.trim_start().to_lowercase();
        line.starts_with("copyright") || line.starts_with("(c) ") || line.starts_with("©")
    };
    let is_title = |line: &str| {
        let words = line.trim().trim_matches(['#', ' ', '*', '(', ')', ':']).to_lowercase();
        words.is_empty()
            || words == "all rights reserved."
            || (words.len() < 50 && words.contains("license") && !words.contains("the license shall"))
    };
    let head = lines.iter().take_while(|line| is_holder(line) || is_title(line)).count();
    let whole = || (Vec::new(), trimmed(&lines));
    if !lines[..head].iter().any(|line| is_holder(line)) || lines[head..].iter().any(|line| is_holder(line)) {
        return whole();
    }
    let holders = lines[..head].iter().filter(|line| is_holder(line)).map(|line| line.trim().to_owned());
    (holders.collect(), trimmed(&lines[head..]))
}

/// Without empty lines at both ends.
fn trimmed(lines: &[&str]) -> String {
    let text = lines.join("\n");
    text.trim_matches('\n').to_owned()
}

/// The words alone.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, text: &str) -> Library {
        Library {
            name: name.into(),
            version: "1.0.0".into(),
            licence: "MIT".into(),
            texts: vec![text.into()],
        }
    }

    #[test]
    fn equal_texts_stand_once_with_all_who_are_under_them() {
        let one = library(
            "one",
            "The MIT License (MIT)\n\nCopyright (c) 2020 A\nCopyright (c) 2021 B\n\nPermission is\nhereby granted.\n",
        );
        let two = library("two", "Copyright (c) 2019 C\r\n\r\nPermission is hereby\r\ngranted.");
        let three =
            library("three", "Copyright (c) 2019 C\n\nRedistribution.\n\nCopyright (c) 2018 D\n\nMore.");
        let text = notices(&["amphora-agent".into()], vec![one.clone(), three.clone(), two.clone()]);
        assert_eq!(text, notices(&["amphora-agent".into()], vec![two, one, three]));
        assert_eq!(text.matches("ermission is").count(), 1);
        assert!(
            text.contains(
                "one 1.0.0 (MIT)\n    Copyright (c) 2020 A\n    Copyright (c) 2021 B\ntwo 1.0.0 (MIT)\n    Copyright (c) 2019 C\n\nPermission"
            ),
            "{text}"
        );
        assert!(text.contains("three 1.0.0 (MIT)\n\nCopyright (c) 2019 C\n\nRedistribution.\n\nCopyright (c) 2018 D\n\nMore.\n"), "{text}");
    }

    #[test]
    fn nobodys_name_is_lost() {
        for (text, holder) in [
            ("MIT License\n\nCopyright (c) 2017 X <x@y>\n\nPermission", "Copyright (c) 2017 X <x@y>"),
            ("Permission\n\nCopyright 2017 X", "Copyright 2017 X"),
            ("Copyright © 2016 X\n\nPermission", "Copyright © 2016 X"),
            ("// Copyright 2015 X\n//\n// Permission", "Copyright 2015 X"),
        ] {
            assert!(notices(&[], vec![library("one", text)]).contains(holder), "{text}");
        }
    }
}
