//! Changes that the kernel makes all together or not at all.

use super::{
    Memory,
    expression::{OWN_MAP, Verdict},
    ruleset::{Content, Element, Hook, Rule, Set, Type},
    wire::{self, Attributes},
};

/// `NFNL_SUBSYS_NFTABLES`, as the upper byte of message types.
pub(super) const NFTABLES: u16 = 10 << 8;
/// `NFPROTO_INET`.
pub(super) const INET: u8 = 1;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// The most bytes of elements in one message: the length of an attribute has 16 bits.
const MOST: usize = 32 * 1024;

/// Changes of one table, in turn.
#[derive(Clone, Debug)]
pub struct Batch {
    table: String,
    messages: Vec<Message>,
    maps: u32,
}

#[derive(Clone, Debug)]
struct Message {
    kind: u16,
    flags: u16,
    attributes: Attributes,
    /// What it is about.
    place: String,
}

impl Batch {
    pub(super) fn new(table: &str) -> Self {
        Self { table: table.to_owned(), messages: Vec::new(), maps: 0 }
    }

    /// The removal of a table with all that is in it, whether it is there or not.
    pub fn removal(table: &str) -> Self {
        let mut batch = Self::new(table);
        batch.table(0, CREATE);
        batch.table(2, 0);
        batch
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn replace_table(&mut self) {
        // Deleting one that is not there would be an error.
        self.table(0, CREATE);
        self.table(2, 0);
        self.table(0, CREATE);
    }

    fn table(&mut self, kind: u16, flags: u16) {
        let attributes = Attributes::default().text(1, &self.table);
        self.push(kind, flags, attributes, "the table".to_owned());
    }

    pub(super) fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut attributes = Attributes::default().text(1, &self.table).text(3, name);
        if let Some(Hook { kind, place, priority }) = hook {
            let hook = Attributes::default().u32(1, place as u32).u32(2, priority as u32);
            attributes = attributes.nested(4, &hook).u32(5, ACCEPT).text(7, kind);
        }
        self.push(3, CREATE, attributes, format!("chain {name}"));
    }

    pub(super) fn delete_chain(&mut self, name: &str) {
        let attributes = Attributes::default().text(1, &self.table).text(3, name);
        self.push(5, 0, attributes, format!("the end of chain {name}"));
    }

    pub(super) fn flush_chain(&mut self, name: &str) {
        let attributes = Attributes::default().text(1, &self.table).text(2, name);
        self.push(8, 0, attributes, format!("the old rules of chain {name}"));
    }

    pub(super) fn add_rule(&mut self, chain: &str, index: usize, rule: &Rule) {
        let place = format!("rule {} of chain {chain}", index + 1);
        let mut list = Attributes::default();
        for expression in rule {
            if let Some(rows) = expression.own_map() {
                self.add_own_map(rows, &place);
            }
            list = list.nested(1, &expression.attributes(self.maps));
        }
        let attributes = Attributes::default().text(1, &self.table).text(2, chain).nested(4, &list);
        self.push(6, CREATE | APPEND, attributes, place);
    }

    fn add_own_map(&mut self, rows: &[Verdict], place: &str) {
        self.maps += 1;
        let size = Attributes::default().u32(1, rows.len() as u32);
        let attributes = Attributes::default().text(1, &self.table).text(2, OWN_MAP);
        let attributes = attributes.u32(3, ANONYMOUS | CONSTANT | MAP).u32(4, INTEGER).u32(5, 4);
        let attributes = attributes.u32(6, VERDICT).u32(7, 0).nested(9, &size).u32(10, self.maps);
        let attributes = attributes.bytes(13, &byte_order(0, true));
        self.push(9, CREATE, attributes, format!("the map of {place}"));
        // What numgen and jhash give is in the host's order.
        let keys: Vec<_> = (0..rows.len() as u32).map(u32::to_ne_bytes).collect();
        let elements: Vec<_> = keys.iter().map(|key| &key[..]).zip(rows.iter().map(Some)).collect();
        self.elements(12, CREATE, OWN_MAP, Some(self.maps), &elements);
    }

    pub(super) fn add_set(&mut self, name: &str, set: &Set) {
        let attributes = Attributes::default().text(1, &self.table).text(2, name);
        let flags = match set.content {
            Content::Counted(_) => 0,
            Content::Verdicts(_) => MAP,
            Content::Remembered { .. } => MAP | TIMEOUT | EVALUATED,
            Content::Rates { .. } => TIMEOUT | EVALUATED,
            Content::Flows { .. } => EVALUATED,
        };
        let mut orders = byte_order(0, set.key.0 == Type::MARK).to_vec();
        if let Content::Remembered { .. } = set.content {
            orders.extend(byte_order(1, true));
        }
        // Within the batch alone, and another for each.
        self.maps += 1;
        let mut attributes = attributes.u32(3, flags).u32(4, set.key.0.0).u32(5, set.key.1);
        let of_size = |size: u32| Attributes::default().u32(1, size);
        match &set.content {
            Content::Counted(_) => {
                let counter = Attributes::default().u64(1, 0).u64(2, 0);
                let counter = Attributes::default().text(1, "counter").nested(2, &counter);
                attributes = attributes.u32(10, self.maps).nested(17, &counter);
            }
            Content::Verdicts(_) => attributes = attributes.u32(6, VERDICT).u32(7, 0).u32(10, self.maps),
            Content::Remembered { timeout, size } => {
                let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                attributes = attributes.u32(6, Type::MARK.0).u32(7, 4).nested(9, &of_size(*size));
                attributes = attributes.u32(10, self.maps).u64(11, timeout);
            }
            Content::Rates { timeout, size } => {
                let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                attributes = attributes.nested(9, &of_size(*size)).u32(10, self.maps).u64(11, timeout);
            }
            Content::Flows { size } => attributes = attributes.nested(9, &of_size(*size)).u32(10, self.maps),
        }
        let attributes = attributes.bytes(13, &orders);
        self.push(9, CREATE, attributes, format!("set {name}"));
    }

    pub(super) fn delete_set(&mut self, name: &str) {
        let attributes = Attributes::default().text(1, &self.table).text(2, name);
        self.push(11, 0, attributes, format!("the end of set {name}"));
    }

    pub(super) fn flush_set(&mut self, name: &str) {
        let attributes = Attributes::default().text(1, &self.table).text(2, name);
        self.push(14, 0, attributes, format!("the old elements of set {name}"));
    }

    pub(super) fn add_elements(&mut self, set: &str, elements: &[Element<'_>]) {
        self.elements(12, CREATE, set, None, elements);
    }

    pub(super) fn delete_elements(&mut self, set: &str, elements: &[Element<'_>]) {
        self.elements(14, 0, set, None, elements);
    }

    /// The removal of elements by their keys.
    pub fn forget(table: &str, set: &str, keys: &[Vec<u8>]) -> Self {
        let mut batch = Self::new(table);
        batch.delete_elements(set, &keys.iter().map(|key| (&key[..], None)).collect::<Vec<_>>());
        batch
    }

    /// Puts what was remembered in a map that these changes make, for the time that it had left.
    pub fn remember(&mut self, map: &str, memories: &[Memory]) {
        let of = |memory: &Memory| {
            let element =
                key(&memory.key).nested(2, &Attributes::default().bytes(1, &memory.mark.to_ne_bytes()));
            // 0 would be for as long as the map says.
            let left = u64::try_from(memory.left.as_millis()).unwrap_or(u64::MAX).max(1);
            element.u64(5, left)
        };
        self.list(12, CREATE, map, None, memories.iter().map(of));
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, id: Option<u32>, elements: &[Element<'_>]) {
        let of = |(name, verdict): &Element<'_>| match verdict {
            Some(verdict) => key(name).nested(2, &verdict.attributes()),
            None => key(name),
        };
        self.list(kind, flags, set, id, elements.iter().map(of));
    }

    fn list(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        id: Option<u32>,
        elements: impl ExactSizeIterator<Item = Attributes>,
    ) {
        let count = elements.len();
        let mut list = Attributes::default();
        for (nth, element) in elements.enumerate() {
            list = list.nested(1, &element);
            if list.len() >= MOST || nth + 1 == count {
                let mut attributes = Attributes::default().text(1, &self.table).text(2, set);
                if let Some(id) = id {
                    attributes = attributes.u32(4, id);
                }
                let attributes = attributes.nested(3, &std::mem::take(&mut list));
                self.push(kind, flags, attributes, format!("elements of set {set}"));
            }
        }
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: Attributes, place: String) {
        self.messages.push(Message { kind, flags, attributes, place });
    }

    /// What is sent, with sequence numbers from this one on: that of what begins the batch.
    pub(super) fn encode(&self, first: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::message(&mut bytes, 0x10, REQUEST, first, 0, NFTABLES >> 8, &[]);
        let mut sequence = first;
        for (nth, message) in self.messages.iter().enumerate() {
            sequence = sequence.wrapping_add(1);
            // That of the last is that of all.
            let ack = if nth + 1 == self.messages.len() { ACK } else { 0 };
            let flags = REQUEST | message.flags | ack;
            let kind = NFTABLES | message.kind;
            wire::message(&mut bytes, kind, flags, sequence, INET, 0, message.attributes.as_slice());
        }
        wire::message(&mut bytes, 0x11, REQUEST, sequence.wrapping_add(1), 0, NFTABLES >> 8, &[]);
        bytes
    }

    pub(super) fn len(&self) -> u32 {
        self.messages.len() as u32
    }

    /// What the message with this number is about, when that of what begins the batch is 0.
    pub(super) fn place(&self, number: u32) -> Option<&str> {
        let index = number.checked_sub(1)?;
        Some(&self.messages.get(index as usize)?.place)
    }
}

fn key(bytes: &[u8]) -> Attributes {
    Attributes::default().nested(1, &Attributes::default().bytes(1, bytes))
}

/// `NFTNL_UDATA_SET_KEYBYTEORDER` (0) or `NFTNL_UDATA_SET_DATABYTEORDER` (1), by which nft(8) lists what is in the host's order as
/// numbers.
fn byte_order(what: u8, host: bool) -> [u8; 6] {
    [what, 4, if host { HOST } else { NETWORK }, 0, 0, 0]
}

/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// Flags of sets.
const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const MAP: u32 = 8;
const TIMEOUT: u32 = 0x10;
const EVALUATED: u32 = 0x20;
/// `NFT_DATA_VERDICT`.
const VERDICT: u32 = 0xffff_ff00;
/// Byte orders of nft(8).
const HOST: u8 = 1;
const NETWORK: u8 = 2;
/// `integer` of nft(8).
const INTEGER: u32 = 4;
