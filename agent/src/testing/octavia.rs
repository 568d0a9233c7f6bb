//! The real Octavia as the judge: `AMPHORA_OCTAVIA_PYTHON` names a Python that has the package `octavia`, or
//! `target/octavia-venv` holds one. Without it these tests say so and pass.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::{Serialize, de::DeserializeOwned};

fn python() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/octavia-venv/bin/python");
    let named = std::env::var_os("AMPHORA_OCTAVIA_PYTHON").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(beside)).filter(|python| python.exists()))
}

/// Where `tests/octavia` is, whose modules scripts may import.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/octavia");

/// Runs a script that reads `input` as JSON from its standard input and prints JSON; `None` without an Octavia.
pub(crate) fn ask<T: DeserializeOwned>(script: &str, input: &impl Serialize) -> Option<T> {
    let Some(python) = python() else {
        eprintln!("SKIPPED: no Octavia; set AMPHORA_OCTAVIA_PYTHON to a Python with the package octavia");
        return None;
    };
    let mut child = Command::new(&python)
        .args(["-c", script])
        .env("PYTHONPATH", MODULES)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", python.display()));
    let mut stdin = child.stdin.take().unwrap();
    let input = serde_json::to_vec(input).unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
