//! The client of QEMU's monitor: one connection for some questions, and one deadline for each.
//!
//! QEMU speaks to one client at a time; others wait in the socket's queue, so that a connection is kept no longer than it takes.

pub mod wire;

use std::{path::Path, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use self::wire::{Message, Reader};

/// Why QEMU has not done what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// It says so.
    #[error("{0}: {1}")]
    Refused(String, String),
    /// It cannot be asked, or is no QEMU.
    #[error("its monitor: {0}")]
    Broken(String),
}

/// A connection to a monitor.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    reader: Reader,
    /// Of the last command.
    id: u64,
    patience: Duration,
}

impl Monitor {
    /// Connects to the socket that a process listens on, and nobody else; this and every command may take as long as `patience`. May
    /// be cancelled.
    ///
    /// # Errors
    /// Nobody answers, or somebody else.
    pub async fn connect(socket: &Path, pid: u32, patience: Duration) -> Result<Self, NotDone> {
        let late = |_| NotDone::Broken(format!("no answer within {} s", patience.as_secs_f32()));
        let greeted = timeout(patience, async {
            let stream = UnixStream::connect(socket).await.map_err(|e| NotDone::Broken(e.to_string()))?;
            let peer = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
            if peer != Some(pid) {
                return Err(NotDone::Broken(format!("process {peer:?} has it in place of {pid}")));
            }
            let mut this = Self { stream, reader: Reader::default(), id: 0, patience };
            while this.message().await? != Message::Greeting {}
            Ok(this)
        });
        let mut this = greeted.await.map_err(late)??;
        this.call("qmp_capabilities", Value::Null).await?;
        Ok(this)
    }

    /// Has a command carried out, and gives what it returns.
    ///
    /// # Errors
    /// It is refused, or not answered in time.
    pub async fn call(&mut self, name: &str, arguments: Value) -> Result<Value, NotDone> {
        self.id += 1;
        let line = wire::command(self.id, name, &arguments);
        let patience = self.patience;
        let answer = timeout(patience, async {
            self.stream.write_all(line.as_bytes()).await.map_err(|e| NotDone::Broken(e.to_string()))?;
            loop {
                match self.message().await? {
                    Message::Return(id, value) if id == self.id => return Ok(value),
                    Message::Refused(id, reason) if id == self.id || id == 0 => {
                        return Err(NotDone::Refused(name.to_owned(), reason));
                    }
                    _ => {}
                }
            }
        });
        let late = |_| NotDone::Broken(format!("{name}: no answer within {} s", patience.as_secs_f32()));
        answer.await.map_err(late)?
    }

    async fn message(&mut self) -> Result<Message, NotDone> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(message) = self.reader.message().map_err(|e| NotDone::Broken(e.to_string()))? {
                return Ok(message);
            }
            let read = self.stream.read(&mut bytes).await.map_err(|e| NotDone::Broken(e.to_string()))?;
            if read == 0 {
                return Err(NotDone::Broken("it has ended".to_owned()));
            }
            self.reader.feed(&bytes[..read]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;
    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        net::UnixListener,
    };

    use super::*;

    /// Says `lines` to who connects, the first at once and each other one for a command.
    async fn monitor(listener: UnixListener, lines: &'static [&'static str]) -> Vec<Value> {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut asked = BufReader::new(read).lines();
        let mut commands = Vec::new();
        for line in lines {
            write.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            match asked.next_line().await {
                Ok(Some(command)) => commands.push(serde_json::from_str(&command).unwrap()),
                _ => break,
            }
        }
        commands
    }

    #[tokio::test]
    async fn a_command_has_its_own_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let lines = &[
            "{\"QMP\": {}}",
            "{\"return\": {}, \"id\": 1}",
            "{\"event\": \"STOP\"}\r\n{\"return\": 1, \"id\": 1}\r\n{\"return\": {\"status\": \"running\"}, \"id\": 2}",
            "{\"error\": {\"desc\": \"no\"}, \"id\": 3}",
        ];
        let server = tokio::spawn(monitor(listener, lines));
        let mut monitor = Monitor::connect(&path, std::process::id(), Duration::from_secs(10)).await.unwrap();
        assert_eq!(monitor.call("query-status", Value::Null).await.unwrap(), json!({"status": "running"}));
        let refused = monitor.call("netdev_del", json!({"id": "a"})).await.unwrap_err();
        assert_eq!(refused.to_string(), "netdev_del: no");
        drop(monitor);
        let commands = server.await.unwrap();
        assert_eq!(commands[2], json!({"execute": "netdev_del", "arguments": {"id": "a"}, "id": 3}));
    }

    #[tokio::test]
    async fn who_does_not_answer_is_not_waited_for() {
        const SHORT: Duration = Duration::from_millis(50);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let gone = Monitor::connect(&path, std::process::id(), SHORT).await.unwrap_err();
        assert!(gone.to_string().contains("No such file"), "{gone}");
        let _listener = UnixListener::bind(&path).unwrap();
        let late = Monitor::connect(&path, std::process::id(), SHORT).await.unwrap_err();
        assert_eq!(late.to_string(), "its monitor: no answer within 0.05 s");
        let other = Monitor::connect(&path, 1, SHORT).await.unwrap_err();
        assert!(other.to_string().contains("in place of 1"), "{other}");
    }
}
