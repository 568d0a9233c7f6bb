//! The samples of one request: what rules compare, found once per evaluation and kept in reusable memory.

use std::cmp::Ordering;

use super::{RequestFacts, program::Source, regex::Allowance};
use crate::http::{comma_values, sampled_cookies};
use crate::tls::PeerFacts;

/// A header or cookie name of a program: rules that look at the same one share its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Subject(u32);

/// The names that a program's rules look at.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    /// In lower case, sorted by length and bytes.
    headers: Vec<(Box<[u8]>, Subject)>,
    /// A bit for each length of these, modulo 64: most fields of a request are no subject, and need no search.
    header_lengths: u64,
    /// As they are, sorted likewise.
    cookies: Vec<(Box<[u8]>, Subject)>,
    count: u32,
    /// Fields of certificates' subjects, each once; theirs are other [`Subject`]s than those above.
    fields: Vec<Box<str>>,
}

fn by_length<I: Iterator<Item = u8>>(name: &[u8], length: usize, other: I) -> Ordering {
    name.len().cmp(&length).then_with(|| name.iter().copied().cmp(other))
}

impl Subjects {
    /// The subject for a header's name, in any case.
    pub(super) fn header(&mut self, name: &str) -> Subject {
        let lower: Box<[u8]> = name.to_ascii_lowercase().into_bytes().into();
        self.header_lengths |= 1 << (lower.len() % 64);
        Self::intern(&mut self.headers, &mut self.count, lower)
    }

    /// The subject for a cookie's name.
    pub(super) fn cookie(&mut self, name: &str) -> Subject {
        Self::intern(&mut self.cookies, &mut self.count, name.as_bytes().into())
    }

    /// The subject for a field of a certificate's subject, in any case.
    pub(super) fn subject_field(&mut self, name: &str) -> Subject {
        let known = self.fields.iter().position(|field| field.eq_ignore_ascii_case(name));
        let at = known.unwrap_or_else(|| {
            self.fields.push(name.into());
            self.fields.len() - 1
        });
        // A load balancer has some thousand rules.
        Subject(at as u32)
    }

    fn intern(names: &mut Vec<(Box<[u8]>, Subject)>, count: &mut u32, name: Box<[u8]>) -> Subject {
        match names.binary_search_by(|(n, _)| by_length(n, name.len(), name.iter().copied())) {
            Ok(at) => names[at].1,
            Err(at) => {
                let subject = Subject(*count);
                *count += 1;
                names.insert(at, (name, subject));
                subject
            }
        }
    }

    #[inline]
    fn find_header(&self, name: &[u8]) -> Option<Subject> {
        if self.header_lengths & 1 << (name.len() % 64) == 0 {
            return None;
        }
        let lower = || name.iter().map(u8::to_ascii_lowercase);
        let at = self.headers.binary_search_by(|(n, _)| by_length(n, name.len(), lower())).ok()?;
        Some(self.headers[at].1)
    }

    fn find_cookie(&self, name: &[u8]) -> Option<Subject> {
        let at =
            self.cookies.binary_search_by(|(n, _)| by_length(n, name.len(), name.iter().copied())).ok()?;
        Some(self.cookies[at].1)
    }
}

/// Memory for evaluations, one after another, of any programs.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) samples: Samples,
    pub(super) allowance: Allowance,
    /// The place in the program of the policy that has applied.
    pub(super) applied: Option<usize>,
}

impl Scratch {
    /// Empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a regular expression did not match in the last evaluation because all of them together would have cost
    /// too much.
    pub fn is_exceeded(&self) -> bool {
        self.allowance.is_exceeded()
    }
}

/// The samples of one request.
#[derive(Debug, Default)]
pub(super) struct Samples {
    samples: Vec<Sample>,
    /// Per subject, the index of its last sample in `samples`.
    last: Vec<u32>,
    /// One bit per policy.
    pub(super) candidates: Vec<u64>,
}

/// A piece of a header field's value.
#[derive(Debug)]
struct Sample {
    /// The field's index; [`NONE`] for the request's normalized host.
    header: u32,
    start: u32,
    end: u32,
    /// The index of the same subject's sample before this one.
    previous: u32,
}

const NONE: u32 = u32::MAX;

/// Samples kept allocated between evaluations; a request that had more gives the memory back.
const RETAINED_SAMPLES: usize = 1024;

impl Samples {
    fn push(&mut self, subject: Subject, header: usize, start: usize, end: usize) {
        // A head is at most 64 KiB, far below what 32 bits hold.
        let last = &mut self.last[subject.0 as usize];
        self.samples.push(Sample {
            header: header as u32,
            start: start as u32,
            end: end as u32,
            previous: *last,
        });
        *last = self.samples.len() as u32 - 1;
    }

    fn collect<R: RequestFacts + ?Sized>(&mut self, subjects: &Subjects, request: &R) {
        self.samples.clear();
        self.samples.shrink_to(RETAINED_SAMPLES);
        self.last.clear();
        self.last.resize(subjects.count as usize, NONE);
        let mut has_host = false;
        for index in 0..request.header_count() {
            let (name, value) = request.header(index);
            if let Some(subject) = subjects.find_header(name) {
                let is_host = name.eq_ignore_ascii_case(b"host");
                has_host |= is_host;
                let host = request.normalized_host().filter(|_| is_host);
                let (index, value) = host.map_or((index, value), |host| (NONE as usize, host));
                let connection = name.eq_ignore_ascii_case(b"connection");
                if connection && value.trim_ascii().is_empty() {
                    continue;
                }
                for range in comma_values(value) {
                    if !(connection && is_persistence(&value[range.clone()])) {
                        self.push(subject, index, range.start, range.end);
                    }
                }
            }
            if !subjects.cookies.is_empty() && name.eq_ignore_ascii_case(b"cookie") {
                for cookie in sampled_cookies(value) {
                    if let Some(subject) = subjects.find_cookie(&value[cookie.name]) {
                        self.push(subject, index, cookie.value.start, cookie.value.end);
                    }
                }
            }
        }
        if !has_host
            && let Some(subject) = subjects.find_header(b"host")
            && let Some(host) = request.normalized_host()
        {
            self.push(subject, NONE as usize, 0, host.len());
        }
    }
}

/// Whether an option of `Connection` is one that HAProxy acts on and takes away before rules see it; a field that is
/// empty goes whole.
fn is_persistence(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive")
}

/// A request as rules see it, with its headers read at the first rule that asks for one.
pub(super) struct View<'e, R: ?Sized> {
    request: &'e R,
    /// Who has sent it, where there is TLS.
    peer: Option<&'e PeerFacts>,
    subjects: &'e Subjects,
    scratch: &'e mut Samples,
    /// The path without the query; `None` when the target has none.
    pub(super) path: Option<&'e [u8]>,
    collected: bool,
}

impl<'e, R: RequestFacts + ?Sized> View<'e, R> {
    pub(super) fn new(
        request: &'e R,
        peer: Option<&'e PeerFacts>,
        subjects: &'e Subjects,
        scratch: &'e mut Samples,
    ) -> Self {
        let target = request.path_and_query();
        let end = memchr::memchr(b'?', target).unwrap_or(target.len());
        let path = (!target.is_empty()).then_some(&target[..end]);
        Self { request, peer, subjects, scratch, path, collected: false }
    }

    /// Every value of a header or cookie, last first.
    #[inline]
    pub(super) fn samples(&mut self, subject: Subject) -> impl Iterator<Item = &'e [u8]> + use<'_, 'e, R> {
        if !self.collected {
            self.scratch.collect(self.subjects, self.request);
            self.collected = true;
        }
        let samples = &self.scratch.samples;
        let request = self.request;
        let mut next = self.scratch.last[subject.0 as usize];
        std::iter::from_fn(move || {
            let sample = samples.get(next as usize)?;
            next = sample.previous;
            let value = match sample.header {
                NONE => request.normalized_host()?,
                index => request.header(index as usize).1,
            };
            Some(&value[sample.start as usize..sample.end as usize])
        })
    }

    /// What a rule about the client's certificate compares; `None` without TLS.
    pub(super) fn of_peer(&self, source: Source) -> Option<&'e [u8]> {
        let peer = self.peer?;
        match source {
            Source::Path | Source::Named(_) => None,
            Source::HasCertificate => Some(if peer.certificate.is_some() { b"1" } else { b"0" }),
            // X509_V_OK: a handshake that finds anything else does not come to its end.
            Source::VerifyResult => Some(b"0"),
            Source::SubjectField(Subject(at)) => {
                peer.certificate.as_ref()?.subject_field(self.subjects.fields.get(at as usize)?)
            }
        }
    }

    /// The bits of the policies that may apply.
    pub(super) fn candidates(&mut self) -> &mut Vec<u64> {
        &mut self.scratch.candidates
    }
}
