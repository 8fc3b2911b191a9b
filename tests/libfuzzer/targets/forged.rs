#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| chord::fuzz::run("forged", data));
