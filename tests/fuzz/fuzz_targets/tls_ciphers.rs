#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| amphora_proxy::tls::fuzz::cipher_list(data));
