//! What tasks need besides containers and networks, made before them and removed after them: so far
//! their volumes.

pub mod volumes;
