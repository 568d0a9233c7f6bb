#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| amphora_ini::dialect::fuzz(data));
