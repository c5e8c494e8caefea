//! Real kernels under the unmodified library: power cuts, full disks and kills.
//!
//! `rig.rs` says how to run more of it, and what becomes of it where the machine lacks something.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod block;
mod bytes;
mod child;
mod dice;
mod disk;
mod full;
mod glue;
mod kill;
mod ledger;
mod mount;
mod orders;
mod power;
mod rig;
mod rules;
mod stamp;
mod survival;
mod writer;
