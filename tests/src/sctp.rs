//! Endpoints of SCTP in user space, in a network namespace: `sctp/peer.py`, which says what it is told.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::IpAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::Namespace;

/// What speaks SCTP for a namespace. Ends with the value, without a word to who is associated.
#[derive(Debug)]
pub struct SctpPeer {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl SctpPeer {
    /// Starts it. `None`, and a line that says so, where there is no usrsctp.
    pub fn start(namespace: &Namespace) -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/sctp/peer.py");
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace.name(), "python3", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let (commands, answers) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut peer = Self { child, commands, answers };
        if peer.heard() != "ready" {
            eprintln!("SKIPPED: no libusrsctp2, or no python3");
            return None;
        }
        Some(peer)
    }

    fn heard(&mut self) -> String {
        let mut line = String::new();
        // What has ended says nothing.
        let _ = self.answers.read_line(&mut line);
        line.trim_end().to_owned()
    }

    fn tell(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.heard()
    }

    /// Listens, and answers each message with the name, who has sent it, and the message.
    ///
    /// # Panics
    /// When it cannot.
    pub fn listen(&mut self, name: &str, address: IpAddr, port: u16) {
        assert_eq!(self.tell(&format!("listen {name} {address} {port}")), "ok");
    }

    /// Listens no more, and aborts what it has accepted.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn end(&mut self, name: &str) {
        assert_eq!(self.tell(&format!("end {name}")), "ok");
    }

    /// Associates: `ok`, or what the error is called.
    pub fn open(&mut self, label: &str, from: &str, to: &str, port: u16) -> String {
        self.tell(&format!("open {label} {from} {to} {port}"))
    }

    /// As [`open`](Self::open), without waiting for what comes of it.
    ///
    /// # Panics
    /// When it cannot begin.
    pub fn begin(&mut self, label: &str, from: &str, to: &str, port: u16) {
        assert_eq!(self.tell(&format!("begin {label} {from} {to} {port}")), "ok");
    }

    /// Sends a message of one word, without waiting for an answer.
    ///
    /// # Panics
    /// When the association is not there.
    pub fn send(&mut self, label: &str, message: &str) {
        assert_eq!(self.tell(&format!("send {label} {message}")), "ok");
    }

    /// What a message of one word is answered by, or what the error is called.
    pub fn ask(&mut self, label: &str, message: &str) -> String {
        self.tell(&format!("ask {label} {message}"))
    }

    /// Shuts down: `ok` when the other side has, too.
    pub fn close(&mut self, label: &str) -> String {
        self.tell(&format!("close {label}"))
    }

    /// What has come to an association that nothing was asked on.
    pub fn wait(&mut self, label: &str) -> String {
        self.tell(&format!("wait {label}"))
    }

    /// Type and code of the next ICMP error that is about SCTP.
    pub fn unreachable(&mut self) -> String {
        self.tell("unreachable")
    }
}

impl Drop for SctpPeer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
