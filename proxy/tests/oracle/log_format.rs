//! Formats of flow logs.

use std::net::SocketAddr;

use amphora_proxy::logs::{
    Format, Frontend, Protocol, Record,
    calendar::{Calendar, Wall},
    line::{self, Host, MAX_LINE},
    template::Template,
};

/// The format up to the first line feed, and a target behind it: what is refused is refused somewhere in the format; what is
/// accepted writes lines of a bounded length, the same each time, without control characters unless `capture.req.uri` has them.
pub(crate) fn log_format(data: &[u8]) {
    let (format, target) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"/"[..]),
    };
    let Ok(format) = std::str::from_utf8(format) else { return };
    let target: Vec<u8> = target.iter().copied().filter(|byte| *byte != b' ').collect();
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let parsed = match Format::parse(format, protocol) {
            Ok(parsed) => parsed,
            Err(error) => {
                assert!(error.position <= format.len(), "{error}");
                assert!(error.reason.len() < format.len() + 2000, "{error}");
                continue;
            }
        };
        let id = "11111111-2222-3333-4444-555555555555".parse().expect("an id");
        let client: SocketAddr = "[2001:db8::1]:65535".parse().expect("an address");
        let mut record = Record::new(parsed.needs(), client, tokio::time::Instant::now());
        record.keep_request(b"GET", &target, b"HTTP/1.1");
        let frontend = Frontend::new(id, protocol, data.len().is_multiple_of(2));
        let template = Template::new(&parsed, frontend);
        let host = Host { name: "amphora".into(), process: u32::MAX };
        let write = || {
            let mut out = b"head ".to_vec();
            let mut calendar = Calendar::new(|_| -3600);
            line::write(&mut out, &template, &record, &host, Wall(1_795_888_097_654_321), &mut calendar);
            out
        };
        let line = write();
        assert_eq!(line, write());
        let text = line.strip_prefix(b"head ").expect("what was there stays");
        assert!(text.len() < MAX_LINE, "{} bytes", text.len());
        if !format.contains("capture.req.") {
            assert!(!text.iter().any(u8::is_ascii_control), "{text:?}");
        }
    }
}
