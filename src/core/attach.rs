//! Announced network interfaces, from the announcement until the control plane knows that they are here
//! (spec/control-plane.md 3.4, 3.7, 5.6). Pure like the rest of the core; `app` carries the effects out.
//!
//! ```text
//!  announced ──> WAITING ──link is here──> SENDING ──accepted──> SENT ──task gone, expired──> forgotten
//!                   │ expiry                  │ expiry, refused
//!                   └──────── forgotten <─────┘
//! ```
//! Level-triggered: any event makes everything be looked at again, so a repeated or a late one changes
//! nothing. Held against tests: each attachment is told at most once, never after it expired, and
//! nothing is told that was not announced and seen.

use crate::model::{Attachment, MacAddress, TaskArn, Wall};
use std::collections::{BTreeMap, BTreeSet};

/// More interfaces than an instance can have (some 15, and 120 branches), with room.
pub const MAX_ATTACHMENTS: usize = 1024;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum AttachEvent {
    /// The control plane announced one.
    Announced(Attachment),
    /// All hardware addresses that the host has.
    Links(BTreeSet<MacAddress>),
    /// Telling of this one came to its end.
    Told {
        /// Which one.
        mac: MacAddress,
        /// The control plane has it; otherwise it will never take it.
        accepted: bool,
    },
    /// The tasks that there are.
    Tasks(BTreeSet<TaskArn>),
    /// Time passed.
    Tick,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachEffect {
    /// Make it durable.
    Store(Attachment),
    /// Remove it from the store.
    Forget(MacAddress),
    /// Tell the control plane, before it expires.
    Tell(Attachment),
}

#[derive(Debug, Clone)]
struct Entry {
    attachment: Attachment,
    /// Telling is under way.
    telling: bool,
}

/// All attachments.
#[derive(Debug, Clone, Default)]
pub struct Attachments {
    by_mac: BTreeMap<MacAddress, Entry>,
    here: BTreeSet<MacAddress>,
    tasks: BTreeSet<TaskArn>,
}

impl Attachments {
    /// What was stored, after a restart. Those that expired in the meantime go with the next event.
    pub fn restored(stored: impl IntoIterator<Item = Attachment>) -> Self {
        let entry = |attachment: Attachment| (attachment.mac, Entry { attachment, telling: false });
        Self { by_mac: stored.into_iter().map(entry).collect(), ..Self::default() }
    }

    /// Works an event in. Whether an announced one can be taken is asked before, by
    /// [`Attachments::can_take`].
    pub fn step(&mut self, event: AttachEvent, now: Wall) -> Vec<AttachEffect> {
        let mut effects = Vec::new();
        match event {
            AttachEvent::Announced(attachment) => self.announce(attachment, now, &mut effects),
            AttachEvent::Links(here) => self.here = here,
            AttachEvent::Tasks(tasks) => self.tasks = tasks,
            AttachEvent::Told { mac, accepted } => self.told(mac, accepted, &mut effects),
            AttachEvent::Tick => {}
        }
        self.expire(now, &mut effects);
        for entry in self.by_mac.values_mut() {
            let due = !entry.attachment.sent && !entry.telling && self.here.contains(&entry.attachment.mac);
            if due {
                entry.telling = true;
                effects.push(AttachEffect::Tell(entry.attachment.clone()));
            }
        }
        effects
    }

    /// Takes back an announcement that could not be made durable: it was not taken, and comes again.
    pub fn take_back(&mut self, mac: MacAddress) {
        self.by_mac.remove(&mac);
    }

    /// Whether these can be taken now: there is room, and none has the address of another that is just
    /// being told of.
    pub fn can_take(&self, more: &[Attachment]) -> bool {
        let busy =
            |a: &Attachment| self.by_mac.get(&a.mac).is_some_and(|e| e.telling && e.attachment.arn != a.arn);
        if more.iter().any(busy) {
            return false;
        }
        let new = more.iter().filter(|a| !self.by_mac.contains_key(&a.mac)).count();
        self.by_mac.len() + new <= MAX_ATTACHMENTS
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_mac.is_empty()
    }

    /// Whether any waits for its link: only then need links be watched.
    pub fn awaits_links(&self) -> bool {
        self.by_mac.values().any(|e| !e.attachment.sent && !e.telling)
    }

    /// When time alone changes something next.
    pub fn next_expiry(&self) -> Option<Wall> {
        self.by_mac.values().filter(|e| !self.keeps(e)).map(|e| e.attachment.expires_at).min()
    }

    /// A message that comes twice restarts nothing. The address of one that is done with (told, or
    /// expired) may come again for another interface.
    fn announce(&mut self, attachment: Attachment, now: Wall, effects: &mut Vec<AttachEffect>) {
        let keep = |e: &Entry| {
            let known = &e.attachment;
            known.arn == attachment.arn || e.telling || (!known.sent && known.expires_at > now)
        };
        if self.by_mac.get(&attachment.mac).is_some_and(keep) || attachment.expires_at <= now {
            return;
        }
        effects.push(AttachEffect::Store(attachment.clone()));
        self.by_mac.insert(attachment.mac, Entry { attachment, telling: false });
    }

    fn told(&mut self, mac: MacAddress, accepted: bool, effects: &mut Vec<AttachEffect>) {
        let Some(entry) = self.by_mac.get_mut(&mac).filter(|e| e.telling) else { return };
        entry.telling = false;
        if accepted {
            entry.attachment.sent = true;
            effects.push(AttachEffect::Store(entry.attachment.clone()));
        } else {
            self.by_mac.remove(&mac);
            effects.push(AttachEffect::Forget(mac));
        }
    }

    /// What time does not take: one that is being told of comes to its own end, one that was told stays
    /// for as long as what it is for.
    fn keeps(&self, entry: &Entry) -> bool {
        let in_use = || entry.attachment.task.as_ref().is_none_or(|task| self.tasks.contains(task));
        entry.telling || (entry.attachment.sent && in_use())
    }

    fn expire(&mut self, now: Wall, effects: &mut Vec<AttachEffect>) {
        let expired = |e: &&Entry| e.attachment.expires_at <= now && !self.keeps(e);
        let gone: Vec<MacAddress> = self.by_mac.values().filter(expired).map(|e| e.attachment.mac).collect();
        for mac in gone {
            self.by_mac.remove(&mac);
            effects.push(AttachEffect::Forget(mac));
        }
    }
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
