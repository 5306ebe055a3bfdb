//! Containers' logs: the small program that writes them (one process a container, started by the
//! shim), and the reader of what it wrote.
//!
//! ```text
//!   container ─stdout─> pipe (fd 3) ─┐
//!             ─stderr─> pipe (fd 4) ─┴─> ecsd-logger ─> <id>-json.log, .1, .2 ... ─> reader
//!                                          └─ fd 5: closed when it is ready
//! ```
//!
//! The writer never ends before both pipes have: a container whose log can't be written goes on, and
//! what was lost is counted. It uses no runtime and little memory; nothing of the agent is linked in
//! but this module.

pub mod reader;
pub mod record;
pub mod rotate;
pub mod writer;
