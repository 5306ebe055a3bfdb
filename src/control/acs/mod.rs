//! ACS: the websocket by which the control plane tells the agent what to run.

pub mod wire;
