//! The loop that sends every request to object storage, against a store that
//! fails in every way that the emulator knows.

mod reads;
mod same;
mod scene;
mod throttling;
mod uploads;
mod writes;
