//! The durable state of the agent: what was asked of it, and how far it got.
//!
//! Owns the file `<data directory>/ecsd.redb`. The engine calls it, from a thread that may block;
//! nobody else reads or writes the file. It never decides anything, never stores a credential (it
//! is handed none), and never gives back a record that it can't vouch for:
//!
//! ```text
//!   commit(changes) ──> one redb transaction, fsync ──> tables: tasks  progress  meta
//!   load()          <── every record: version, checksum, words    │
//!                       what does not read is moved ──────────────┴──> quarantine
//!   open()          ──> the file as a whole does not check ──> ecsd.redb.corrupt-<n>, and what still
//!                       reads of it is carried over to a fresh one
//! ```
//!
//! Rules: spec/task-engine.md 6 (what is kept, and when); one record per task and one transaction
//! per step are ours, so no crash leaves a container without its task.

mod disk;
mod doubles;
mod envelope;
mod record;
mod tables;

pub use disk::{FILE_NAME, RedbStore};
pub use doubles::{FailingStore, MemoryStore};

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod disk_tests;
