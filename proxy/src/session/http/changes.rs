//! What policies change in a request and its response, and what they answer: put together for one request.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::rand;

use super::decide::Origin;
use crate::{
    balance::hash::mix,
    http::{
        EditList, Entropy, Identification, Ids, Known, MAX_FIELDS, MAX_HEAD, Method, RequestView, TooLong,
    },
    http1::responses::{self, Recipient},
    l7::{self, Answer, Edits, Facts, LateEdits},
    snapshot::ListenerPlan,
};

/// What is changed in a request.
pub(super) struct Changes<'p> {
    edits: Vec<&'p Arc<Edits>>,
    /// The path in place of the client's.
    pub(super) path: Option<Vec<u8>>,
    pub(super) fields: EditList<'p>,
}

/// What a request is known by.
pub(super) fn identify(identification: &Identification, view: &RequestView<'_>) -> Ids {
    static WITHOUT: AtomicU64 = AtomicU64::new(0);
    let mut entropy: Entropy = [0; 40];
    if rand::fill(&mut entropy).is_err() {
        // No system is without; ids are still told apart, as far as this process makes them.
        let number = WITHOUT.fetch_add(1, Ordering::Relaxed);
        entropy.chunks_mut(8).for_each(|part| part.copy_from_slice(&mix(number + 1).to_be_bytes()));
    }
    identification.identify(view, &entropy)
}

/// What is known of a request before it has a member.
pub(super) fn facts<'a>(
    plan: &'a ListenerPlan,
    view: &RequestView<'a>,
    client: SocketAddr,
    ids: Option<&'a Ids>,
) -> Facts<'a> {
    let host = view.value(Known::Host).or_else(|| l7::target_host(view.target()));
    Facts {
        client,
        listener_port: &plan.port_text,
        member: None,
        request_id: ids.map_or(b"", |ids| &ids.request),
        host: host.unwrap_or_default(),
        path: view.path().unwrap_or_default(),
    }
}

impl<'p> Changes<'p> {
    /// Of the request that was evaluated last.
    pub(super) fn of(
        plan: &'p ListenerPlan,
        view: &RequestView<'_>,
        origin: &Origin<'_>,
        facts: &Facts<'_>,
        ids: Option<&Ids>,
        scratch: &mut l7::Scratch,
    ) -> Result<Self, TooLong> {
        let mut edits = Vec::new();
        plan.l7.edits_over(view, origin.facts, scratch, |found| edits.push(found));
        let path = match view.path() {
            Some(path) => l7::rewritten_path(path, edits.iter().copied(), scratch)?,
            None => None,
        };
        let mut fields = EditList::default();
        if let (Some(identification), Some(ids)) = (&plan.identification, ids) {
            identification.fields(ids, &mut fields)?;
        }
        edits.iter().try_for_each(|edits| edits.of_request(facts, &mut fields))?;
        Ok(Self { edits, path, fields })
    }

    /// The host in place of the client's: the last that there is.
    pub(super) fn host(&self) -> Option<&'p [u8]> {
        self.edits.iter().rev().find_map(|edits| edits.host())
    }

    /// What is left to be changed in the response.
    pub(super) fn of_response(&self, facts: &Facts<'_>) -> Option<LateEdits> {
        LateEdits::new(self.edits.iter().copied(), facts)
    }
}

/// Whether a head that was changed is one that every member takes.
pub(super) fn fits(head: &[u8]) -> bool {
    // The first line and the empty one are no fields.
    head.len() <= MAX_HEAD && memchr::memchr_iter(b'\n', head).count() <= MAX_FIELDS + 2
}

/// Writes a policy's answer; says its status.
pub(super) fn write_answer(out: &mut Vec<u8>, answer: &Answer, facts: &Facts<'_>, to: Recipient) -> u16 {
    if answer.write_head(out, facts).is_err() {
        out.clear();
        responses::write_error(out, 500, to);
        return 500;
    }
    responses::end_head(out, to);
    if to.method != Method::Head {
        out.extend_from_slice(answer.body());
    }
    answer.status
}
