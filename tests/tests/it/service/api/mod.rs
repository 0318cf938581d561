//! The services as a program calls them: refusals, crowds, clients that vanish,
//! and what is too large.

mod disconnects;
mod limits;
mod refusals;
mod scene;
mod versions;
mod watchers;
