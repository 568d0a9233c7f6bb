//! Events, who may see which, and the newest of them in memory. No I/O.

use std::{collections::VecDeque, sync::Arc};

use serde_json::json;

use super::super::change::iso_of;

/// The most events of a window: what streams that keep up may be behind.
const KEPT: usize = 512;

/// A row of `event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: i64,
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) project: String,
    pub(super) load_balancer: String,
    pub(super) kind: String,
    pub(super) object: String,
    pub(super) attribute: String,
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
    pub(super) reason: Option<String>,
}

impl Event {
    /// As a stream has it. JSON has no line breaks.
    pub(super) fn text(&self) -> String {
        let data = json!({
            "id": self.id,
            "at": time(self.at),
            "project_id": self.project,
            "loadbalancer_id": self.load_balancer,
            "object_type": self.kind,
            "object_id": self.object,
            "attribute": self.attribute,
            "old": self.old,
            "new": self.new,
            "reason": self.reason,
        });
        format!("id: {}\ndata: {data}\n\n", self.id)
    }
}

/// A time with its milliseconds.
fn time(at: i64) -> String {
    format!("{}.{:03}Z", iso_of(at).as_str().unwrap_or_default(), at.rem_euclid(1000))
}

/// Which events somebody wants, of those that he may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Of this project; `None` is of all.
    pub(super) project: Option<String>,
    /// Of this load balancer.
    pub(super) load_balancer: Option<String>,
    /// Amphorae as well, which are for operators.
    pub(super) amphorae: bool,
}

impl Filter {
    pub(super) fn admits(&self, event: &Event) -> bool {
        self.project.as_ref().is_none_or(|project| *project == event.project)
            && self.load_balancer.as_ref().is_none_or(|id| *id == event.load_balancer)
            && (self.amphorae || event.kind != "amphora")
    }
}

/// All events after one id up to another, the newest that there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    after: i64,
    to: i64,
    events: VecDeque<Arc<Event>>,
}

impl Window {
    /// Nothing but that there are events up to this one.
    pub(super) fn at(id: i64) -> Self {
        Self { after: id, to: id, events: VecDeque::new() }
    }

    /// The id of the last.
    pub(super) fn to(&self) -> i64 {
        self.to
    }

    /// The next one. Of more than are kept the oldest goes.
    pub(super) fn push(&mut self, event: Event) {
        self.to = event.id;
        self.events.push_back(Arc::new(event));
        if self.events.len() > KEPT {
            self.after = self.events.pop_front().map_or(self.after, |gone| gone.id);
        }
    }

    /// Those behind an id; `None` when not all of them are here.
    pub(super) fn behind(&self, id: i64) -> Option<impl Iterator<Item = &Event>> {
        let begin = self.events.partition_point(|event| event.id <= id);
        (id >= self.after).then(|| self.events.range(begin..).map(|event| &**event))
    }
}

/// Where a stream begins, and what it says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The first event is the one behind this id.
    pub(super) behind: i64,
    /// Set when events that were asked for are not there: the history begins at this id.
    pub(super) history: Option<i64>,
}

impl Start {
    /// `asked` is the last that the client has seen, `oldest` the first that is there, `newest` the last that there ever was.
    pub(super) fn of(asked: Option<i64>, oldest: Option<i64>, newest: i64) -> Self {
        let first = oldest.unwrap_or(newest.saturating_add(1));
        match asked {
            None => Self { behind: newest, history: None },
            // Of another database, or of this one before it was restored: nothing that is known follows.
            Some(asked) if asked > newest => Self { behind: newest, history: Some(newest.saturating_add(1)) },
            Some(asked) if asked.saturating_add(1) < first => {
                Self { behind: first.saturating_sub(1), history: Some(first) }
            }
            Some(asked) => Self { behind: asked, history: None },
        }
    }

    /// What is said before all else.
    pub(super) fn text(&self) -> String {
        // How long a browser waits before it comes again, in milliseconds.
        let mut text = "retry: 1000\n\n".to_owned();
        if let Some(first) = self.history {
            text.push_str(&format!("event: history\ndata: {}\n\n", json!({"first_id": first})));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn event(id: i64) -> Event {
        Event {
            id,
            at: 1_764_525_600_007,
            project: "p".to_owned(),
            load_balancer: "lb".to_owned(),
            kind: "listener".to_owned(),
            object: "l".to_owned(),
            attribute: "provisioning_status".to_owned(),
            old: Some("PENDING_CREATE".to_owned()),
            new: Some("ERROR".to_owned()),
            reason: Some("no\nroom".to_owned()),
        }
    }

    fn ids(window: &Window, id: i64) -> Option<Vec<i64>> {
        window.behind(id).map(|events| events.map(|event| event.id).collect())
    }

    #[test]
    fn a_window_has_the_newest_and_knows_what_it_has_not() {
        let mut window = Window::at(10);
        assert_eq!((ids(&window, 10), ids(&window, 9)), (Some(vec![]), None));
        // Ids of what was undone are missing.
        [12, 13].into_iter().for_each(|id| window.push(event(id)));
        assert_eq!((ids(&window, 10), ids(&window, 11)), (Some(vec![12, 13]), Some(vec![12, 13])));
        assert_eq!(
            (ids(&window, 12), ids(&window, 13), ids(&window, 99)),
            (Some(vec![13]), Some(vec![]), Some(vec![]))
        );
        (14..14 + KEPT as i64).for_each(|id| window.push(event(id)));
        assert_eq!(
            (ids(&window, 12), ids(&window, 13).unwrap().len(), window.events.len()),
            (None, KEPT, KEPT)
        );
        assert_eq!(window.to(), 13 + KEPT as i64);
    }

    #[test]
    fn who_comes_again_is_told_what_is_not_there_any_more() {
        let start = |asked, oldest, newest| {
            let Start { behind, history } = Start::of(asked, oldest, newest);
            (behind, history)
        };
        assert_eq!(start(None, Some(5), 9), (9, None), "from now on");
        assert_eq!(start(Some(7), Some(5), 9), (7, None));
        assert_eq!(start(Some(4), Some(5), 9), (4, None), "nothing is missing");
        assert_eq!(start(Some(3), Some(5), 9), (4, Some(5)));
        assert_eq!(start(Some(0), None, 9), (9, Some(10)), "all of it is purged");
        assert_eq!(start(Some(0), None, 0), (0, None), "nothing ever was");
        assert_eq!(start(Some(i64::MAX), Some(5), 9), (9, Some(10)), "of another database");
        assert_eq!(start(Some(0), Some(1), 9), (0, None), "all there is");
        assert_eq!(
            Start::of(Some(3), Some(5), 9).text(),
            "retry: 1000\n\nevent: history\ndata: {\"first_id\":5}\n\n"
        );
    }

    #[test]
    fn an_event_is_two_lines() {
        let text = event(7).text();
        let lines: Vec<_> = text.split('\n').collect();
        assert_eq!((lines[0], lines[2], lines[3], lines.len()), ("id: 7", "", "", 4));
        let data: serde_json::Value = serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&data["at"], &data["reason"]), (&json!("2025-11-30T18:00:00.007Z"), &json!("no\nroom")));
    }

    #[test]
    fn filters_admit_what_is_wanted() {
        let of = |kind: &str| Event { kind: kind.to_owned(), ..event(1) };
        let filter = |project: Option<&str>, load_balancer: Option<&str>, amphorae| Filter {
            project: project.map(str::to_owned),
            load_balancer: load_balancer.map(str::to_owned),
            amphorae,
        };
        assert!(filter(None, None, true).admits(&of("amphora")));
        assert!(!filter(None, None, false).admits(&of("amphora")));
        assert!(filter(Some("p"), Some("lb"), false).admits(&of("member")));
        assert!(!filter(Some("q"), None, true).admits(&of("member")));
        assert!(!filter(Some("p"), Some("other"), true).admits(&of("member")));
    }
}
