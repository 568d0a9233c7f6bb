//! Octavia's own amphora: its agent, HAProxy and keepalived, on a machine that `tests/octavia/reference/run.py` makes.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use amphora_tests::{Certificates, Namespace};

use crate::{controller::python, ground::AMPHORA};

#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) management: Namespace,
    pub(crate) certificates: Certificates,
    machine: Child,
}

impl Reference {
    /// Starts its agent with this file of Octavia's; `None`, said loudly, when something is not there.
    pub(crate) fn start_as(id: &'static str, octavias: &str) -> Option<Self> {
        let python = python()?;
        for program in ["haproxy", "keepalived"] {
            if Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                eprintln!("SKIPPED: there is no {program} for Octavia's own amphora");
                return None;
            }
        }
        let management = Namespace::create()?;
        let certificates = Certificates::new();
        certificates.issue("agent", &[id]);
        certificates.issue("controller", &["controller"]);
        let path = certificates.path();
        fs::copy(certificates.file("agent"), path.join("server.pem")).unwrap();
        fs::copy(certificates.file("ca"), path.join("client_ca.pem")).unwrap();
        let config = octavias.replace(AMPHORA, id).replace("172.30.0.2:5555", "127.0.0.1:5555");
        fs::write(path.join("octavia.conf"), config).unwrap();
        let log = File::create(path.join("log")).unwrap();
        let machine = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", management.name()))
            .args(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["--propagation", "private"])
            .arg(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("octavia/reference/run.py"))
            .args([path.join("octavia.conf").as_path(), path])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { management, certificates, machine })
    }

    /// All that runs on it, but for what makes the machine.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut all = Vec::new();
        let mut next = vec![i32::try_from(self.machine.id()).unwrap()];
        while let Some(pid) = next.pop() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            next.extend(children.split_ascii_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
            let program = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if !program.starts_with("unshare") && !program.contains("/run.py") {
                all.push(pid);
            }
        }
        all
    }

    /// The machine loses power: all that runs on it ends at once.
    pub(crate) fn power_off(&mut self) {
        // What `unshare` has started ends with it, and the namespace of processes with that.
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.power_off();
        if std::thread::panicking() {
            for name in ["log", "agent.log", "driver.log"] {
                let log = fs::read_to_string(self.certificates.path().join(name)).unwrap_or_default();
                eprintln!("{name} of Octavia's own amphora:\n{log}");
            }
        }
    }
}
