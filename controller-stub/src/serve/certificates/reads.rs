//! Tenants' certificates, from a storage that may hang: each is read in time, or is lacking, and what hangs holds no more than some threads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use amphora_bundle::Kind;
use amphora_model::CertificateId;
use futures_util::future::join_all;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::Certificates;
use crate::{
    client::Credential,
    error::{Error, Result},
    serve::turns::Turns,
};

/// How long those of a load balancer may take, with the wait for turns: less than a step of the worker's.
const DEADLINE: Duration = Duration::from_secs(20);

/// Certificates that are read at a time.
const AT_A_TIME: usize = 16;

/// And of one project.
const OF_A_PROJECT: usize = 4;

type Read = dyn Fn(&str, &CertificateId, &[Kind]) -> Result<Credential> + Send + Sync;

/// Who reads them.
pub struct Reads {
    read: Arc<Read>,
    turns: Turns,
    deadline: Duration,
}

impl std::fmt::Debug for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reads").finish_non_exhaustive()
    }
}

impl Reads {
    /// Of those that lie where these are.
    pub fn of(certificates: Arc<Certificates>) -> Self {
        let read = move |project: &str, name: &CertificateId, kinds: &[Kind]| {
            certificates.tenant(project, name, kinds)
        };
        Self::new(Arc::new(read), DEADLINE)
    }

    fn new(read: Arc<Read>, deadline: Duration) -> Self {
        Self { read, turns: Turns::new(AT_A_TIME, OF_A_PROJECT), deadline }
    }

    /// Those of a project, each as agents take it for all of its kinds, or why it is lacking.
    pub async fn read(
        &self,
        project: &str,
        uses: BTreeMap<CertificateId, Vec<Kind>>,
    ) -> BTreeMap<CertificateId, Result<Credential>> {
        let end = Instant::now() + self.deadline;
        let each = uses.into_iter().map(|(name, kinds)| async move {
            let found = timeout_at(end, self.one(project, &name, kinds)).await;
            let late = |_| {
                let seconds = self.deadline.as_secs();
                Err(Error::NotDone(format!("the certificate {name} cannot be read within {seconds} s")))
            };
            let found = found.unwrap_or_else(late);
            (name, found)
        });
        join_all(each).await.into_iter().collect()
    }

    async fn one(&self, project: &str, name: &CertificateId, kinds: Vec<Kind>) -> Result<Credential> {
        let turn = self.turns.take(project).await;
        let (read, project, id) = (Arc::clone(&self.read), project.to_owned(), name.clone());
        let job = spawn_blocking(move || {
            // For as long as the storage holds this thread, its turn is nobody else's.
            let _turn = turn;
            read(&project, &id, &kinds)
        });
        job.await.map_err(|e| Error::local(format!("the certificate {name}"), e))?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_lacking_and_holds_nobody_else() {
        let (go_on, hung) = mpsc::channel::<()>();
        let hung = std::sync::Mutex::new(hung);
        let read = move |_: &str, name: &CertificateId, _: &[Kind]| {
            if name.to_string().starts_with("hangs") {
                let _ = hung.lock().unwrap().recv();
            }
            Ok(Credential::Pem(Vec::new().into()))
        };
        let reads = Reads::new(Arc::new(read), Duration::from_millis(300));
        let read = async |project: &str, names: &[&str]| {
            let uses = names.iter().map(|name| (name.parse().unwrap(), Vec::new())).collect();
            let found = reads.read(project, uses).await;
            let lacking = found.into_values().filter_map(|found| found.err().map(|e| e.to_string()));
            lacking.collect::<Vec<_>>()
        };
        let lacking = read("one", &["hangs", "well"]).await;
        assert!(
            lacking.len() == 1 && lacking[0].contains("the certificate hangs cannot be read"),
            "{lacking:?}"
        );
        for name in ["hangs1", "hangs2", "hangs3"] {
            assert_eq!(read("one", &[name]).await.len(), 1);
        }
        assert_eq!(read("one", &["well"]).await.len(), 1, "it has no turn left");
        assert_eq!(read("other", &["well"]).await, [""; 0]);
        drop(go_on);
    }
}
