//! `serve` with its members, in the namespaces that `benches/serve` has made.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use amphora_benches::{Result, process::Memory};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A running `serve`.
pub(crate) struct Serve {
    process: Child,
    dir: PathBuf,
    program: PathBuf,
}

impl Serve {
    /// Starts it on a directory that is empty.
    pub(crate) fn start(program: &Path, dir: &Path) -> Result<Self> {
        let process = launch(program, dir, 0)?;
        Ok(Self { process, dir: dir.to_owned(), program: program.to_owned() })
    }

    /// Ends it, and starts it again with so many spares.
    pub(crate) fn with_spares(&mut self, spares: usize) -> Result<()> {
        self.end()?;
        self.process = launch(&self.program, &self.dir, spares)?;
        Ok(())
    }

    /// Ends it; its amphorae go on.
    pub(crate) fn end(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.process.id().try_into()?), Signal::SIGTERM)?;
        self.process.wait()?;
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Processes of its amphorae.
    pub(crate) fn amphorae(&self) -> Vec<u32> {
        let dir = self.dir.join("data/amphorae").display().to_string();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let names = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&dir)
        };
        numbers.filter(names).collect()
    }

    /// Kills the agent of one amphora.
    pub(crate) fn kill_one(&self, amphora: &str) -> Result<()> {
        let short: String = amphora.chars().filter(|c| *c != '-').take(16).collect();
        for pid in self.amphorae() {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&short) {
                kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL)?;
            }
        }
        Ok(())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(program: &Path, dir: &Path, spares: usize) -> Result<Child> {
    let file = dir.join("serve.conf");
    let text =
        format!("[networks]\nlb = 10.20.0.0/20\n[house_keeping]\nspare_amphora_pool_size = {spares}\n");
    fs::write(&file, text)?;
    let log = fs::File::options().create(true).append(true).open(dir.join("serve.log"))?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--config-file").arg(&file).arg("--data-dir").arg(dir.join("data"));
    Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
}

/// Members on all addresses, each on a port of its own, that answer their numbers.
pub(crate) fn members(count: usize) -> Result<()> {
    for n in 0..count {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, u16::try_from(8000 + n)?))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, n);
            }
        });
    }
    Ok(())
}

/// One request; the connection is closed, as the client of a request each wants it.
fn answer(mut stream: TcpStream, n: usize) {
    let mut head = [0; 4096];
    if stream.read(&mut head).is_ok_and(|length| length > 0) {
        let body = n.to_string();
        let text =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(text.as_bytes());
    }
}

/// CPU time that processes have used so far, in seconds.
pub(crate) fn cpu(pids: &[u32]) -> f64 {
    let ticks = |pid: &u32| -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    pids.iter().filter_map(ticks).sum::<f64>() / 100.0
}

/// What is resident of one process, in MiB.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    Ok(Memory::of(&[pid])?.resident as f64 / 1_048_576.0)
}

/// What processes have in memory, pages that are shared divided among those who share them, in MiB.
pub(crate) fn proportional(pids: &[u32]) -> f64 {
    let of = |pid: &u32| Memory::of(&[*pid]).map(|memory| memory.proportional).unwrap_or_default();
    pids.iter().map(of).sum::<u64>() as f64 / 1_048_576.0
}
