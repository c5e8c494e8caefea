//! The target `consumer` for libFuzzer; what it does is in `src/`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| stratalog_fuzz::targets::consumer(data));
