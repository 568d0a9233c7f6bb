//! Octavia's templates in a process of their own, which renders one load balancer after the other.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use serde::Deserialize;
use serde_json::Value;

use crate::haproxy::octavia_python;

/// What became of a load balancer.
#[derive(Debug, Deserialize)]
pub(super) struct Rendered {
    /// What the controller sends.
    #[serde(rename = "text")]
    pub(super) sent: String,
    /// The same with values as the tenant has said them, where the templates escape them or HAProxy would cut them.
    pub(super) raw: String,
}

/// The process. It goes with the value.
pub(super) struct Renderer {
    child: Child,
    lines: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Renderer {
    /// `None`, loudly, where there is no Octavia or no HAProxy.
    pub(super) fn start() -> Option<Self> {
        let python = octavia_python()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("octavia/render_haproxy.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg("--lines")
            .env("PYTHONWARNINGS", "ignore")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, lines: lines.into() })
    }

    pub(super) fn render(&self, document: &Value) -> Result<Rendered, String> {
        let mut lines = self.lines.lock().unwrap();
        writeln!(lines.0, "{document}").unwrap();
        lines.0.flush().unwrap();
        let mut answer = String::new();
        lines.1.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(serde_json::from_value(answer).unwrap()),
        }
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
