//! How a host is reached, for all who dial: which proxy leads there, and whose certificates are
//! believed. No sockets and no runtime here; `control` dials by it asynchronously, the loggers of
//! `logs` block.

pub mod proxy;
pub mod tls;
