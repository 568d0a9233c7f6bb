#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/tests/oracle/mod.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| oracle::hpack(data));
