//! Judging a document without an amphora: its fields here, and what its L7 policies compare by `amphora-proxy --check`, which
//! compiles as the amphora does.

use std::{env, path::PathBuf, process::Stdio, time::Duration};

use amphora_model::{LoadBalancer, Refusal};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    document::Document,
    error::{Error, Result},
};

/// How long `amphora-proxy --check` may take: many times what the bounds on expressions permit.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of a document was judged.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    /// All of it.
    Whole,
    /// Its fields. The program that judges the rest is not at this path.
    Fields(PathBuf),
}

impl Document {
    /// Judges the content as an amphora would. `proxy` is the program that does, by default the one beside this program.
    ///
    /// Cancelled, it ends the program.
    ///
    /// # Errors
    /// [`Error::Faulty`]; [`Error::Usage`] when `proxy` is named and not there; [`Error::Local`] when it cannot be run or
    /// gives no verdict.
    pub async fn judge(&self, proxy: Option<PathBuf>) -> Result<Judged> {
        LoadBalancer::from_value(&self.body).map_err(|refusal| Error::Faulty(refusal.faults))?;
        let named = proxy.is_some();
        let proxy = match proxy {
            Some(proxy) => proxy,
            None => env::current_exe()
                .map_err(|e| Error::local("amphora-proxy", e))?
                .with_file_name("amphora-proxy"),
        };
        if !proxy.is_file() {
            return if named { Err(Error::file(&proxy, "not there")) } else { Ok(Judged::Fields(proxy)) };
        }
        let doing = format!("{} --check", proxy.display());
        let child = Command::new(&proxy)
            .args(["--check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::local(&doing, e))?;
        let output = timeout(PATIENCE, ask(child, self.body.to_string()))
            .await
            .map_err(|_| Error::local(&doing, format!("no verdict after {} s", PATIENCE.as_secs())))?
            .map_err(|e| Error::local(&doing, e))?;
        if output.status.success() {
            return Ok(Judged::Whole);
        }
        Err(match serde_json::from_slice::<Refusal>(&output.stdout) {
            Ok(refusal) => Error::Faulty(refusal.faults),
            // One that is older than this program does not know the option.
            Err(_) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Error::local(doing, format!("{}: {}", output.status, said.trim()))
            }
        })
    }
}

async fn ask(mut child: Child, document: String) -> std::io::Result<std::process::Output> {
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read to the end says why on standard error.
        let _ = stdin.write_all(document.as_bytes()).await;
    }
    child.wait_with_output().await
}
