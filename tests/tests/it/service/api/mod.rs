//! The services as a program calls them: refusals, crowds, clients that vanish,
//! deadlines, and what is too large.

mod deadlines;
mod disconnects;
mod limits;
mod refusals;
mod scene;
mod versions;
mod watchers;
