//! Directions that carry so many bytes and no more, as a body does.

use super::*;

/// Carries so many bytes; ready with how it ended.
async fn carry(
    direction: &mut Direction,
    ends: (&mut Conn, &mut Conn),
    pools: &Pools,
    meter: Meter<'_>,
) -> Ended {
    let end = poll_fn(|cx| direction.poll(cx, ends.0, ends.1, pools, meter));
    timeout(PATIENCE, end).await.unwrap().unwrap_or_else(|fault| panic!("{fault:?}"))
}

async fn exact(length: u64, surplus: usize) {
    let (mut from, mut source) = ours().await;
    let (mut to, mut destination) = ours().await;
    let data: Rc<[u8]> = pattern(length as usize + surplus, length).into();
    let sender = tokio::task::spawn_local({
        let data = data.clone();
        async move {
            from.write_all(&data).await.unwrap();
            from
        }
    });
    let receiver = tokio::task::spawn_local(async move {
        let mut got = Vec::new();
        to.read_to_end(&mut got).await.unwrap();
        got
    });
    let (read, written) = (Counter::default(), Counter::default());
    let pools = Pools::default();
    let meter = Meter { read: &read, written: &written };
    let mut direction = Direction::exact(length);
    let end = carry(&mut direction, (&mut source, &mut destination), &pools, meter).await;
    assert!(matches!(end, Ended::Limit), "{end:?}");
    drop(destination);
    assert!(receiver.await.unwrap() == data[..length as usize]);
    assert_eq!((read.get(), written.get()), (length, length));
    let mut rest = vec![0; surplus];
    let mut got = 0;
    while got < surplus {
        poll_fn(|cx| source.poll_read_ready(cx)).await.unwrap();
        got += source.read(&mut rest[got..]).unwrap_or(0);
    }
    assert!(rest == data[length as usize..], "what follows is still in the source");
    drop(sender.await.unwrap());
    assert_eq!((pools.buffers.lent(), pools.pipes.lent()), (0, 0));
}

#[test]
fn an_exact_direction_reads_not_one_byte_more() {
    const B: u64 = BUFFER_SIZE as u64;
    run(async {
        for length in [0, 1, B - 1, B, B + 1, 2 * B, 4 * B - 1, 4 * B, 4 * B + 1, 3_000_001] {
            for surplus in [0, 1, 5000] {
                exact(length, surplus).await;
            }
        }
    });
}

#[test]
fn an_exact_direction_says_when_the_source_ends_too_early() {
    run(async {
        let (mut from, mut source) = ours().await;
        let (_to, mut destination) = ours().await;
        from.write_all(b"12345").await.unwrap();
        from.shutdown().await.unwrap();
        let (read, written) = (Counter::default(), Counter::default());
        let meter = Meter { read: &read, written: &written };
        let pools = Pools::default();
        let mut preceding = pools.buffers.get();
        preceding.put(b"0");
        let mut direction = Direction::exact(9).preceded_by(Some(preceding));
        let end = carry(&mut direction, (&mut source, &mut destination), &pools, meter).await;
        assert!(matches!(end, Ended::Closed), "{end:?}");
        assert_eq!((direction.read(), read.get(), written.get()), (5, 5, 6));
    });
}
