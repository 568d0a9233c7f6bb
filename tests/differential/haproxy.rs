//! Octavia's rendering of a document, and HAProxy running it.

use std::{
    env,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Replaces the rendered `global` section, which wants a system that is an amphora. What is compared is below it.
const GLOBAL: &str = "global\n    maxconn 500\n    nbthread 1\n\n";

/// The interpreter with octavia installed: from the environment, or where `./test` puts it. `None`, loudly, where there is none, or
/// no HAProxy that could run what it renders.
pub(crate) fn octavia_python() -> Option<PathBuf> {
    let in_target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/octavia-venv/bin/python");
    let said = env::var_os("AMPHORA_OCTAVIA_PYTHON").map(PathBuf::from);
    let Some(python) = said.or(Some(in_target)).filter(|path| path.exists()) else {
        eprintln!(
            "SKIPPED: no Python with octavia; set AMPHORA_OCTAVIA_PYTHON, or run ./test, which makes one"
        );
        return None;
    };
    if Command::new("haproxy").arg("-v").output().is_err() {
        eprintln!("SKIPPED: haproxy is not installed");
        return None;
    }
    Some(python)
}

/// The haproxy.cfg for a document, fit for this machine, and in how many lines values are as the tenant has said them, which the
/// templates escape or HAProxy would cut.
pub(crate) fn render(python: &Path, document: &Value) -> (String, usize) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("octavia/render_haproxy.py");
    let mut child = Command::new(python)
        .arg(script)
        .env("PYTHONWARNINGS", "ignore")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the interpreter starts");
    let mut document = document.clone();
    document["topology"] = "SINGLE".into();
    (document["log_format"], document["facility"], document["details"]) =
        (Value::Null, 0.into(), Value::Null);
    document["raw"] = true.into();
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(Value::from(vec![document]).to_string().as_bytes()).expect("the script reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("the script ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let answer = &answers[0];
    let text = answer["raw"].as_str().unwrap_or_else(|| panic!("the rendering failed: {answer}\n{errors}"));
    let restored = answer["restored"].as_u64().expect("the script counts");
    let defaults = text.find("\ndefaults\n").expect("a rendering has a section of defaults");
    (format!("{GLOBAL}{}", &text[defaults..]), restored as usize)
}

/// The lines that HAProxy complains about, with what it says, when it only checks this configuration.
pub(crate) fn complaints(directory: &Path, configuration: &str) -> Vec<(usize, String)> {
    let file = directory.join("check.cfg");
    std::fs::write(&file, configuration).expect("the directory is writable");
    let output = Command::new("haproxy").arg("-c").arg("-f").arg(&file).output().expect("haproxy runs");
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.contains("[ALERT]"))
        .filter_map(|line| {
            let rest = line.split("check.cfg:").nth(1)?;
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            Some((rest[..digits].parse().ok()?, line.to_owned()))
        })
        .collect()
}

/// A child that is killed when it goes out of scope.
pub(crate) struct Running(Child);

impl Running {
    /// Starts a program and waits until all of these addresses accept connections.
    pub(crate) fn start(mut command: Command, addresses: &[SocketAddr]) -> Self {
        let mut running = Self(command.stdin(Stdio::null()).spawn().expect("the program starts"));
        let deadline = Instant::now() + Duration::from_secs(30);
        for address in addresses {
            while TcpStream::connect(address).is_err() {
                if let Some(status) = running.0.try_wait().expect("it is our child") {
                    panic!("{command:?} ended: {status}");
                }
                assert!(Instant::now() < deadline, "{command:?} does not listen on {address}");
                thread::sleep(Duration::from_millis(5));
            }
        }
        running
    }

    /// HAProxy in the foreground with this configuration.
    pub(crate) fn haproxy(directory: &Path, configuration: &str, ports: &[u16]) -> Self {
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, configuration).expect("the directory is writable");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-q").arg("-f").arg(&file);
        let complaints = complaints(directory, configuration);
        assert!(complaints.is_empty(), "HAProxy refuses the rendering: {complaints:#?}");
        let addresses: Vec<SocketAddr> =
            ports.iter().map(|port| (Ipv4Addr::LOCALHOST, *port).into()).collect();
        Self::start(command, &addresses)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
