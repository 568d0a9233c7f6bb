//! Tenants' certificates as requests name them: looked at before the transaction, because the one who writes waits for no disk and for no
//! hash of a PKCS #12.
//!
//! Which certificates a request is about only its handler knows, who reads rows. So a handler that wants to know of one that was not
//! looked at goes on, and is undone whatever it says; what it wanted is looked at, each once, and it is asked again.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::fault::Fault;
use crate::serve::{certificates::tenants::Tenants, turns::Turns};
use amphora_bundle::{Bundle, Kind, read_file};
use amphora_model::CertificateId;

/// The most certificates of one request.
pub(super) const MOST: usize = 1000;

/// How long those of a request may take, with the wait for a turn. What a storage that hangs holds for longer is a turn.
const DEADLINE: Duration = Duration::from_secs(10);

/// Requests whose certificates are looked at, at a time.
const AT_A_TIME: usize = 8;

/// And of one project.
const OF_A_PROJECT: usize = 2;

/// A question about certificates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Question {
    /// What a reference leads to.
    What { project: String, reference: String },
    /// Whether revocation lists are of these authorities.
    Whose { project: String, authorities: String, lists: String },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no such file, or it is another project's.
    Missing,
    /// What no amphora would take.
    Refused(Fault),
    /// A certificate of this kind.
    Of(Kind),
    /// The lists are of these authorities.
    Theirs,
}

/// What was found out for a request, and what its handler wants to know besides.
#[derive(Debug, Default)]
pub(super) struct Known {
    found: HashMap<Question, Found>,
    wanted: RefCell<BTreeSet<Question>>,
}

/// What a handler wanted that was not known.
#[derive(Debug)]
pub(super) struct Wanted(BTreeSet<Question>);

impl Known {
    /// What a reference leads to for a project; `None` when that was not looked at: the handler will be asked again.
    pub(super) fn what(&self, project: &str, reference: &str) -> Option<&Found> {
        if CertificateId::from_reference(reference).is_err() {
            return Some(&Found::Missing);
        }
        self.find(Question::What { project: project.to_owned(), reference: reference.to_owned() })
    }

    /// Whether revocation lists are of these authorities, likewise.
    pub(super) fn whose(&self, project: &str, authorities: &str, lists: &str) -> Option<&Found> {
        let [project, authorities, lists] = [project, authorities, lists].map(str::to_owned);
        self.find(Question::Whose { project, authorities, lists })
    }

    fn find(&self, question: Question) -> Option<&Found> {
        let found = self.found.get(&question);
        if found.is_none() {
            self.wanted.borrow_mut().insert(question);
        }
        found
    }

    /// What was wanted and not known: then what the handler has done is of no worth.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let wanted = self.wanted.take();
        (!wanted.is_empty()).then_some(Wanted(wanted))
    }

    /// Adds what was found.
    fn with(mut self, more: HashMap<Question, Found>) -> Self {
        self.found.extend(more);
        self
    }
}

/// Who looks at certificates.
#[derive(Debug)]
pub(super) struct Looks {
    tenants: Arc<Tenants>,
    answer: fn(&Question, &Tenants) -> Found,
    turns: Turns,
}

impl Looks {
    pub(super) fn new(tenants: Tenants) -> Self {
        Self { tenants: tenants.into(), answer: Question::answer, turns: Turns::new(AT_A_TIME, OF_A_PROJECT) }
    }

    /// Looks at all that was wanted, on a thread that may block.
    ///
    /// # Errors
    /// They are too many: 400. They take too long: 503.
    pub(super) async fn look(&self, known: Known, Wanted(wanted): Wanted) -> Result<Known, Fault> {
        if known.found.len() + wanted.len() > MOST {
            return Err(Fault::validation(format_args!("A request may name {MOST} certificates.")));
        }
        let end = Instant::now() + DEADLINE;
        let late = || Fault::new(503, "The certificates cannot be read in time. Please try again.");
        let looked = async {
            let turn = self.turns.take(wanted.first().map(Question::project)?).await?;
            let (tenants, answer) = (self.tenants.clone(), self.answer);
            let job = tokio::task::spawn_blocking(move || {
                // For as long as the storage holds this thread, its turn is nobody else's.
                let _turn = turn;
                let each = wanted.into_iter().map(|question| {
                    let found = (Instant::now() < end).then(|| answer(&question, &tenants))?;
                    Some((question, found))
                });
                each.collect::<Option<HashMap<_, _>>>()
            });
            job.await.ok().flatten()
        };
        let looked = tokio::time::timeout(DEADLINE, looked).await;
        Ok(known.with(looked.ok().flatten().ok_or_else(late)?))
    }
}

impl Question {
    fn project(&self) -> &str {
        match self {
            Self::What { project, .. } | Self::Whose { project, .. } => project,
        }
    }

    /// Reads files.
    fn answer(&self, tenants: &Tenants) -> Found {
        match self {
            Self::What { project, reference } => match bundle(tenants, project, reference) {
                Ok(bundle) => Found::Of(bundle.kind()),
                Err(found) => found,
            },
            Self::Whose { project, authorities, lists } => {
                let read = |reference| bundle(tenants, project, reference);
                match read(authorities).and_then(|authorities| Ok((authorities, read(lists)?))) {
                    Ok((authorities, lists)) => theirs(&authorities, &lists),
                    Err(found) => found,
                }
            }
        }
    }
}

/// What a reference leads to, by the name that the amphora knows it by. A reference that names none leads nowhere.
fn bundle(tenants: &Tenants, project: &str, reference: &str) -> Result<Bundle, Found> {
    let name = CertificateId::from_reference(reference).map_err(|_| Found::Missing)?;
    let path = tenants.find(project, &name).ok_or(Found::Missing)?;
    read(&path).map_err(|reason| Found::Refused(invalid(reference, &reason)))
}

fn read(path: &Path) -> Result<Bundle, String> {
    let bytes = read_file(path).map_err(|error| error.to_string())?;
    let is_pem = path.extension().is_some_and(|extension| extension == "pem");
    if is_pem { Bundle::from_pem(&bytes) } else { Bundle::from_pkcs12(&bytes, None) }
}

fn theirs(authorities: &Bundle, lists: &Bundle) -> Found {
    match lists.is_of(authorities) {
        Ok(()) => Found::Theirs,
        Err(reason) => Found::Refused(Fault::validation(format_args!(
            "The CRL specified is not valid for client certificate authority reference supplied. Error: {reason}"
        ))),
    }
}

/// The fault of a certificate that cannot be used.
pub(super) fn invalid(reference: &str, reason: &str) -> Fault {
    Fault::validation(format_args!("The certificate {reference} is invalid. Error: {reason}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use super::*;

    /// Where one looks for as long as this is locked.
    static HANGS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn hangs(question: &Question, _tenants: &Tenants) -> Found {
        if question.project() == "hangs" {
            let _released = HANGS.blocking_lock();
        }
        Found::Theirs
    }

    fn wanted(project: &str, references: usize) -> Wanted {
        let known = Known::default();
        for number in 0..references * 3 {
            assert_eq!(known.what(project, &(number % references).to_string()), None);
        }
        known.wanted().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_storage_that_hangs_holds_nobody_else() {
        let looks = Looks::new(Tenants::new(&PathBuf::new(), [], true));
        let looks = Arc::new(Looks { answer: hangs, ..looks });
        let held = HANGS.lock().await;
        let look = |project: &'static str| {
            let looks = looks.clone();
            tokio::spawn(async move { looks.look(Known::default(), wanted(project, 1)).await })
        };
        let hanging: Vec<_> = (0..3).map(|_| look("hangs")).collect();
        for _ in 0..2 * AT_A_TIME {
            let known = look("other").await.unwrap().unwrap();
            assert_eq!(known.what("other", "0"), Some(&Found::Theirs));
        }
        tokio::time::advance(DEADLINE).await;
        for one in hanging {
            assert_eq!(one.await.unwrap().unwrap_err().status, 503);
        }
        drop(held);
        let known = looks.look(Known::default(), wanted("hangs", 1)).await.unwrap();
        assert!(known.what("hangs", "0").is_some() && known.wanted().is_none());
    }

    #[tokio::test]
    async fn each_is_looked_at_once_and_they_are_bounded() {
        let looks = Looks::new(Tenants::new(&PathBuf::new(), [], true));
        let known = looks.look(Known::default(), wanted("p", MOST)).await.unwrap();
        assert_eq!((known.found.len(), known.what("p", "0")), (MOST, Some(&Found::Missing)));
        let refused = looks.look(known, wanted("q", 1)).await.unwrap_err();
        assert_eq!(refused.status, 400, "{refused}");
    }
}
