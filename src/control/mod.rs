//! The control plane: the ECS API, the two websockets (ACS and TCS), their wire types, signatures
//! and the instance's identity. `app` builds it; the engine sees only [`crate::ports`].

pub mod acs;
