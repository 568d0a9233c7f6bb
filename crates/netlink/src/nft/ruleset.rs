//! A table as it is to be, and the way to it from one that is there.

use std::{collections::BTreeMap, time::Duration};

use super::{
    batch::Batch,
    expression::{Expression, Verdict},
};

/// A rule: its expressions, in turn.
pub type Rule = Vec<Expression>;

/// All of one table of the family `inet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// By name.
    pub chains: BTreeMap<String, Chain>,
    /// By name. What a set is like is told by its name: one that is to be another has another.
    pub sets: BTreeMap<String, Set>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come into it; `None`: from other chains.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where packets come into a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter`, `nat`, or `route`: what is made here and has another mark then is routed again.
    pub kind: &'static str,
    /// Its place on the way.
    pub place: Place,
    /// Chains of lower numbers come first.
    pub priority: i32,
}

/// A place on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// As it has come.
    Prerouting = 0,
    /// From one interface to another.
    Forward = 2,
    /// Made here.
    Output = 3,
    /// As it leaves.
    Postrouting = 4,
}

/// A type of nft(8), for its listings alone: the number in the lower 6 bits, concatenations shifted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type(pub u32);

impl Type {
    /// `ipv4_addr`.
    pub const IPV4: Self = Self(7);
    /// `ipv6_addr`.
    pub const IPV6: Self = Self(8);
    /// `inet_proto`.
    pub const TRANSPORT: Self = Self(12);
    /// `inet_service`.
    pub const PORT: Self = Self(13);
    /// `mark`.
    pub const MARK: Self = Self(19);

    /// A concatenation.
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        Self(self.0 << 6 | next.0)
    }
}

/// A set or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What its keys are, and of how many bytes, concatenations in words.
    pub key: (Type, u32),
    /// What it is for.
    pub content: Content,
}

/// What a set has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These keys, each with a counter of packets and bytes.
    Counted(Vec<Vec<u8>>),
    /// These keys, each with where it goes.
    Verdicts(BTreeMap<Vec<u8>, Verdict>),
    /// Marks that packets have put there, for so long, at most so many.
    Remembered {
        /// How long after the last packet that has renewed it.
        timeout: Duration,
        /// The most.
        size: u32,
    },
    /// Keys that packets have put there, each with a rate of its own, at most so many.
    Rates {
        /// How long after its last packet a key is forgotten.
        timeout: Duration,
        /// The most; the packets of others are not held to a rate.
        size: u32,
    },
    /// Flows that are counted by packets, for at most so many keys.
    Flows {
        /// The most.
        size: u32,
    },
}

impl Ruleset {
    /// The changes that make a table of this name what this says, from what `before` says that it is, or from whatever it is:
    /// then what packets and counters have put in it is lost. In any case it goes from one to the other between two packets.
    pub fn changes(&self, table: &str, before: Option<&Self>) -> Batch {
        let mut batch = Batch::new(table);
        let empty = Self::default();
        let before = match before {
            Some(before) => before,
            None => {
                batch.replace_table();
                &empty
            }
        };
        let before_set = |name| before.sets.get(name);
        // What refers to something goes before it.
        for (name, chain) in &before.chains {
            match self.chains.get(name) {
                Some(now) if now.rules == chain.rules => {}
                _ => batch.flush_chain(name),
            }
        }
        for (name, set) in &before.sets {
            match self.sets.get(name) {
                None => batch.flush_set(name),
                Some(now) => batch.delete_elements(name, &now.lacks_of(set)),
            }
        }
        for (name, set) in &self.sets {
            if before_set(name).is_none() {
                batch.add_set(name, set);
            }
        }
        for (name, chain) in &self.chains {
            if !before.chains.contains_key(name) {
                batch.add_chain(name, chain.hook);
            }
        }
        for (name, set) in &self.sets {
            batch.add_elements(
                name,
                &before_set(name).map_or_else(|| set.elements(), |old| old.lacks_of(set)),
            );
        }
        for (name, chain) in &self.chains {
            if before.chains.get(name).is_none_or(|old| old.rules != chain.rules) {
                for (index, rule) in chain.rules.iter().enumerate() {
                    batch.add_rule(name, index, rule);
                }
            }
        }
        for name in before.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            batch.delete_chain(name);
        }
        for name in before.sets.keys().filter(|name| !self.sets.contains_key(*name)) {
            batch.delete_set(name);
        }
        batch
    }
}

/// A key, and what stands for it.
pub(super) type Element<'a> = (&'a [u8], Option<&'a Verdict>);

impl Set {
    pub(super) fn elements(&self) -> Vec<Element<'_>> {
        match &self.content {
            Content::Counted(keys) => keys.iter().map(|key| (&key[..], None)).collect(),
            Content::Verdicts(rows) => rows.iter().map(|(key, to)| (&key[..], Some(to))).collect(),
            Content::Remembered { .. } | Content::Rates { .. } | Content::Flows { .. } => Vec::new(),
        }
    }

    /// What is in another, and is not in this one, or is something else in it.
    fn lacks_of<'a>(&self, other: &'a Self) -> Vec<Element<'a>> {
        let mine: BTreeMap<_, _> = self.elements().into_iter().collect();
        other.elements().into_iter().filter(|(key, to)| mine.get(key) != Some(to)).collect()
    }
}
