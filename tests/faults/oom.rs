//! Who was killed for memory, and who was not.
