//! Chromium without a window, told what to do by its DevTools protocol over a pair of pipes.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::{Value, json};

use super::PATIENCE;

/// A page in a browser.
pub(super) struct Browser {
    process: Child,
    orders: File,
    answers: BufReader<File>,
    session: Option<String>,
    asked: u64,
    /// What went wrong in the page.
    pub(super) faults: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Browser {
    /// `None`, said loudly, where there is none.
    pub(super) fn start() -> Option<Self> {
        let there = |name: &&str| {
            Command::new(name)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        };
        let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(there) else {
            eprintln!("SKIPPED: chromium is not there");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let [orders, answers] = ["orders", "answers"].map(|name| dir.path().join(name));
        for path in [&orders, &answers] {
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        }
        let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
        // Root has no sandbox.
        let process = Command::new("sh")
            .args(["-c", "orders=$1 answers=$2; shift 2; exec \"$@\" 3<\"$orders\" 4>\"$answers\"", "sh"])
            .args([&orders, &answers])
            .arg(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .args([profile.as_str(), "about:blank"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let orders = OpenOptions::new().write(true).open(orders).unwrap();
        let answers = BufReader::new(File::open(answers).unwrap());
        let mut this =
            Self { process, orders, answers, session: None, asked: 0, faults: Vec::new(), _dir: dir };
        let target = this.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = this.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        this.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            this.call(&format!("{domain}.enable"), json!({}));
        }
        Some(this)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut order = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        self.orders.write_all((order.to_string() + "\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            self.answers.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser has ended");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            let params = &answer["params"];
            match answer["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.faults.push(params.to_string()),
                Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                    self.faults.push(params.to_string())
                }
                _ => {}
            }
        }
    }

    /// Shows an address in a window of this size.
    pub(super) fn open(&mut self, url: &str, (width, height): (u32, u32), scheme: &str) {
        self.resize((width, height), scheme);
        self.call("Page.navigate", json!({"url": url}));
    }

    pub(super) fn resize(&mut self, (width, height): (u32, u32), scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]});
        self.call("Emulation.setEmulatedMedia", media);
    }

    /// Runs a script before those of any page from now on.
    pub(super) fn before_all(&mut self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script}));
    }

    /// What an expression is.
    pub(super) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let told = self.call("Runtime.evaluate", asked);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].clone()
    }

    /// Waits until an expression is this.
    pub(super) fn until(&mut self, expression: &str, expected: &Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.value(&format!(
                "(() => {{ try {{ return {expression} }} catch (e) {{ return String(e) }} }})()"
            ));
            if value == *expected {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{expression} is {value}, not {expected}; {:?}",
                self.faults.last()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Presses a key.
    pub(super) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "ArrowLeft" => (37, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            _ => (key.bytes().next().map_or(0, i64::from), key),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Keeps a picture where somebody wants to look at them.
    pub(super) fn picture(&mut self, name: &str) {
        let Some(dir) = std::env::var_os("AMPHORA_PAGE_PICTURES") else { return };
        let told = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let bytes = data_encoding::BASE64.decode(told["data"].as_str().unwrap().as_bytes()).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(Path::new(&dir).join(format!("{name}.png")), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
