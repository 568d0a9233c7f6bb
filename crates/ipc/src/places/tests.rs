#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

type Marks = (u8, u8);

fn places(connections: usize, at_work: usize, kept_for_others: usize) -> Places<(&'static str, u8)> {
    Places::new(Limits { connections, at_work, kept_for_others })
}

fn marks((certificate, address): Marks) -> Vec<(&'static str, u8)> {
    vec![("certificate", certificate), ("address", address)]
}

async fn take(places: &Places<(&'static str, u8)>, of: Marks) -> Seat<(&'static str, u8)> {
    places.take(marks(of)).await
}

/// Which of these have been let go.
async fn gone(seats: &[Seat<(&'static str, u8)>]) -> Vec<usize> {
    let mut gone = Vec::new();
    for (at, seat) in seats.iter().enumerate() {
        let now = Duration::ZERO;
        if tokio::time::timeout(now, seat.progress().let_go()).await.is_ok() {
            gone.push(at);
        }
    }
    gone
}

fn idle(seat: &Seat<(&'static str, u8)>) {
    seat.answers();
    seat.progress().completes();
    seat.progress().standing().has_flushed(Instant::now());
    assert!(seat.progress().is_idle());
}

#[tokio::test(start_paused = true)]
async fn idle_ones_go_first_and_those_worked_for_never() {
    let places = places(4, 4, 0);
    let mut seats = Vec::new();
    for peer in 0..4 {
        seats.push(take(&places, (peer, peer)).await);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    seats[0].work().unwrap();
    idle(&seats[2]);
    let _next = take(&places, (9, 9)).await;
    assert_eq!(gone(&seats).await, [2], "the idle one");
    let _next = take(&places, (10, 10)).await;
    assert_eq!(gone(&seats).await, [1], "who has kept the server waiting for longest");
    assert_eq!(seats[1].work(), Err(Busy), "what arrives when the place is another's is not carried out");
}

#[tokio::test(start_paused = true)]
async fn all_being_worked_for_keep_the_next_waiting_until_one_is_not() {
    let places = places(2, 2, 0);
    let seats = [take(&places, (0, 0)).await, take(&places, (1, 1)).await];
    seats.iter().for_each(|seat| seat.work().unwrap());
    let soon = Duration::from_millis(1);
    assert!(tokio::time::timeout(soon, take(&places, (2, 2))).await.is_err());
    let next = take(&places, (2, 2));
    let answered = async {
        tokio::time::sleep(soon).await;
        seats[1].answers();
    };
    let (next, ()) = tokio::join!(next, answered);
    assert_eq!(gone(&seats).await, [1]);
    drop(seats);
    next.work().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_largest_crowd_gives_way_by_whatever_it_is_one() {
    for (crowd, another) in [
        ((|_| (1, 1)) as fn(u8) -> Marks, (2, 2)),
        (|at| (1, 10 + at), (2, 2)),
        (|at| (10 + at, 1), (2, 2)),
        (|_| (1, 1), (1, 2)),
        (|_| (1, 1), (2, 1)),
    ] {
        let places = places(6, 6, 0);
        // It is slow, and was there before.
        let mut seats = vec![take(&places, another).await];
        tokio::time::advance(Duration::from_secs(9)).await;
        for at in 0..5 {
            seats.push(take(&places, crowd(at)).await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let newcomer = take(&places, another).await;
        assert_eq!(gone(&seats).await, [1]);
        drop(newcomer);
        seats.remove(1);
        seats.push(take(&places, crowd(5)).await);
        let _again = take(&places, crowd(6)).await;
        assert_eq!(gone(&seats).await, [1], "a crowd takes its own places");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_more_than_it_may_is_busy_before_another_is() {
    let places = places(100, 8, 1);
    let mut held = Vec::new();
    let mut admitted = |seat: Seat<_>| {
        let admitted = seat.work().is_ok();
        held.push(seat);
        admitted
    };
    for at in 0..10 {
        assert_eq!(admitted(take(&places, (1, 1)).await), at < 6, "{at}");
    }
    assert!(admitted(take(&places, (1, 2)).await), "another host with the same certificate");
    assert!(!admitted(take(&places, (1, 3)).await), "and no more of them");
    assert!(admitted(take(&places, (2, 4)).await), "somebody else altogether");
    assert!(!admitted(take(&places, (3, 5)).await), "as many as may be");
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_is_no_progress_and_the_least_rate_is() {
    let places = places(3, 3, 0);
    let seats = [take(&places, (0, 0)).await, take(&places, (1, 1)).await, take(&places, (2, 2)).await];
    for second in 0..20_u32 {
        tokio::time::advance(Duration::from_secs(1)).await;
        let now = Instant::now();
        seats[0].progress().standing().has_read(1024, now);
        seats[1].progress().standing().has_read(1, now);
        seats[2].progress().standing().has_read(if second == 0 { 100_000 } else { 0 }, now);
    }
    let waited = seats.each_ref().map(|seat| seat.progress().waited().as_secs());
    assert_eq!(waited, [0, 19, 19], "nobody sends ahead of the time");
    let _next = take(&places, (3, 3)).await;
    assert_eq!(gone(&seats).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn who_reads_an_answer_is_idle_when_it_has_left() {
    let places = places(1, 1, 0);
    let seat = take(&places, (0, 0)).await;
    let (near, mut far) = duplex(10);
    let mut watched = Watched::new(near, Arc::clone(seat.progress()));
    far.write_all(b"ask").await.unwrap();
    watched.read_exact(&mut [0; 3]).await.unwrap();
    seat.work().unwrap();
    assert_eq!(seat.progress().waited(), Duration::ZERO);
    seat.answers();
    watched.write_all(b"answ").await.unwrap();
    watched.flush().await.unwrap();
    assert!(!seat.progress().is_idle(), "there is more to come");
    seat.progress().completes();
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(seat.progress().waited_for_reading().as_secs(), 3);
    watched.write_all(b"er").await.unwrap();
    watched.flush().await.unwrap();
    assert!(seat.progress().is_idle());
    far.write_all(b"a").await.unwrap();
    watched.read_exact(&mut [0; 1]).await.unwrap();
    assert!(!seat.progress().is_idle(), "the next request has begun");
}
