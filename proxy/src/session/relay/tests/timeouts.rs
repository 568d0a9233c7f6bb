//! Ends that are silent, or take nothing.

use super::*;

fn timeouts(client: u32, member: u32) -> RelayOptions {
    RelayOptions {
        client_timeout: client * SECOND,
        member_timeout: member * SECOND,
        ..RelayOptions::default()
    }
}

#[test]
fn a_silent_client_counts_as_closed_and_the_member_may_still_answer() {
    run_paused(async {
        let mut rig = rig(timeouts(1, 3)).await;
        let start = Instant::now();
        assert_eq!(rig.member.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(start.elapsed().as_secs(), 1);
        tokio::time::sleep(SECOND).await;
        rig.member.write_all(b"late").await.unwrap();
        let mut got = [0; 4];
        rig.client.read_exact(&mut got).await.unwrap();
        drop(rig.member);
        let end = timeout(PATIENCE, rig.end).await.unwrap().unwrap();
        assert_eq!((end.reason, end.member_to_client), (EndReason::TimedOut(Peer::Client), 4));
        assert_eq!(rig.member_counters.client_aborts.get(), 1);
    });
}

#[test]
fn a_silent_member_counts_as_closed() {
    run_paused(async {
        let mut rig = rig(timeouts(3, 1)).await;
        let start = Instant::now();
        assert_eq!(rig.client.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(start.elapsed().as_secs(), 1);
        let counters = rig.member_counters.clone();
        assert_eq!(rig.end().await.reason, EndReason::TimedOut(Peer::Member));
        assert_eq!(start.elapsed().as_secs(), 3, "the client did not close either");
        assert_eq!((counters.server_aborts.get(), counters.client_aborts.get()), (1, 0));
    });
}

#[test]
fn both_silent_ends_time_out_together() {
    run_paused(async {
        let rig = rig(timeouts(2, 2)).await;
        let start = Instant::now();
        assert!(matches!(rig.end().await.reason, EndReason::TimedOut(_)));
        assert_eq!(start.elapsed().as_secs(), 2);
    });
}

#[test]
fn activity_either_way_keeps_both_ends_alive() {
    run_paused(async {
        let mut rig = rig(timeouts(2, 2)).await;
        for _ in 0..5 {
            tokio::time::sleep(SECOND + SECOND / 2).await;
            rig.member.write_u8(1).await.unwrap();
            rig.client.read_u8().await.unwrap();
        }
        assert!(!rig.end.is_finished());
    });
}

#[test]
fn after_a_half_close_only_the_other_end_is_watched() {
    run_paused(async {
        let mut rig = rig(timeouts(1, 4)).await;
        let start = Instant::now();
        rig.client.shutdown().await.unwrap();
        assert_eq!(rig.member.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(rig.end().await.reason, EndReason::TimedOut(Peer::Member));
        assert_eq!(start.elapsed().as_secs(), 4);
    });
}

#[test]
fn an_end_that_takes_nothing_times_out() {
    run_paused(async {
        let rig = rig(timeouts(2, 600)).await;
        let mut member = rig.member;
        let sender =
            tokio::task::spawn_local(
                async move { member.write_all(&vec![0; 64 << 20]).await.map(|()| member) },
            );
        let end = timeout(10 * SECOND, rig.end).await.unwrap().unwrap();
        assert_eq!(end.reason, EndReason::TimedOut(Peer::Client));
        assert!(sender.await.unwrap().is_err());
        assert_eq!(rig.member_counters.client_aborts.get(), 1);
        drop(rig.client);
    });
}

#[test]
fn zero_is_no_timeout() {
    run_paused(async {
        let mut rig = rig(RelayOptions::default()).await;
        tokio::time::sleep(1_000_000 * SECOND).await;
        rig.client.write_u8(7).await.unwrap();
        assert_eq!(rig.member.read_u8().await.unwrap(), 7);
    });
}
