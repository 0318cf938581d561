//! What a fleet is told that cannot work.
