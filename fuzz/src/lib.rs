//! The parts of ecsd that read what a control plane sends, without the rest of it.

#![allow(dead_code, unused_imports, reason = "only a part of each module is reached from here")]

#[path = "../../src/core/mod.rs"]
pub mod core;
#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/ports/mod.rs"]
pub mod ports;

#[path = "../../src/control"]
pub mod control {
    pub mod payload;
    pub mod roles;

    pub mod acs {
        mod attach;
        mod event;
        mod handle;
        pub mod wire;

        pub use handle::check::take;
    }
}

pub use control::acs::take;
