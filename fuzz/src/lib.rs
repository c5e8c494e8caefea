//! Hostile bytes and hostile histories for stratalog: what each fuzz target does with its input.
//!
//! A target is a function from bytes to nothing that panics if a promise is broken. libFuzzer
//! drives it through `fuzz_targets/`, and `examples/plain.rs` without libFuzzer and without a
//! nightly compiler. The seeds in `seeds/` are made by `examples/seeds.rs` from real structures.

mod codecs;
mod consumer;
mod input;
mod mutation;
mod open;
mod ops;
mod repair;
pub mod seeds;
mod world;

#[expect(dead_code, reason = "the words of the tests; not every one is used here")]
#[path = "../../tests/it/support/mod.rs"]
mod support;

/// The targets, each under its name.
pub mod targets {
    pub use crate::codecs::canary;
    pub use crate::codecs::frame;
    pub use crate::codecs::index;
    pub use crate::codecs::manifest;
    pub use crate::codecs::notice;
    pub use crate::codecs::segment;
    pub use crate::codecs::wire;
    pub use crate::consumer::consumer;
    pub use crate::open::open;
    pub use crate::ops::ops;
    pub use crate::repair::repair;
}

/// Name and function of each target that must not fail.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("frame", targets::frame),
    ("index", targets::index),
    ("manifest", targets::manifest),
    ("notice", targets::notice),
    ("segment", targets::segment),
    ("consumer", targets::consumer),
    ("wire", targets::wire),
    ("open", targets::open),
    ("ops", targets::ops),
    ("repair", targets::repair),
];
