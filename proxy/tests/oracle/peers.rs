//! What a peer says.

use std::time::{Duration, Instant};

use amphora_proxy::peers::{
    core::{Config, Session, Tables},
    wire::{MAX_FRAME, Message, frame, framed},
};
use uuid::Uuid;

/// A message that is read is written as it was; a connection takes any bytes in any cuts without a panic, comes to the same
/// end, and is not opened by them.
pub(crate) fn peers(data: &[u8]) {
    let message = data.get(..data.len().min(MAX_FRAME)).unwrap_or_default();
    if let Ok(read) = Message::decode(message) {
        let mut written = Vec::new();
        read.encode(&mut written);
        assert_eq!(written, message);
    }
    let mut rest = data;
    while let Ok(Some(bytes)) = frame(rest) {
        assert!((1..=MAX_FRAME).contains(&bytes.len()));
        rest = &rest[framed(bytes.len())..];
    }
    let epoch = Instant::now();
    let tables = Tables::default();
    for make in [Session::connect, Session::accept] {
        let session = || {
            let config = Config { key: (*b"0123456789abcdef").into(), instance: Uuid::from_u128(1), epoch };
            make(config, [7; 32], epoch)
        };
        let mut whole = session();
        let end = whole.handle_input(epoch, data, &tables);
        let mut cut = session();
        let ended = data
            .chunks(super::steps(data.len())[0])
            .try_for_each(|part| cut.handle_input(epoch, part, &tables));
        assert_eq!(ended, end);
        for session in [&mut whole, &mut cut] {
            assert!(session.parties().is_none(), "opened without the key");
            let output = session.poll_output(epoch, &tables).len();
            assert!(output < 256, "{output}");
            session.sent(epoch, output);
            assert!(session.handle_timeout(epoch + Duration::from_secs(9)).is_err());
        }
    }
}
