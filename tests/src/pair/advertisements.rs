//! When advertisements arrived, by the kernel's own clock: whoever reads them late does not make them late.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use crate::Namespace;

/// The IP protocol of VRRP.
const VRRP: i32 = 112;
/// How long a silent socket is waited for before it is asked again whether to end.
const LOOK: Duration = Duration::from_millis(100);

/// A capture that goes on until it is asked for.
#[derive(Debug)]
pub struct Advertisements {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
    arrivals: oneshot::Receiver<Vec<Duration>>,
}

impl Advertisements {
    /// Those from `source` that arrive in `namespace`.
    pub fn capture(namespace: &Namespace, source: Ipv4Addr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(AtomicUsize::new(0));
        let (until, count) = (stop.clone(), heard.clone());
        let arrivals = namespace.spawn(move || async move { capture(source, &until, &count).unwrap() });
        Self { stop, heard, arrivals }
    }

    /// How many have come so far.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    /// The time since the last one came, by the kernel's stamp: however late this is asked, what happened in between happened
    /// no sooner after it.
    ///
    /// # Panics
    /// When none came.
    pub fn since_last(self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.saturating_sub(*self.arrivals().last().expect("an advertisement"))
    }

    /// How many came, and the longest time between two of them.
    pub fn finish(self) -> (usize, Duration) {
        let arrivals = self.arrivals();
        let longest = arrivals.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
        (arrivals.len(), longest.unwrap_or_default())
    }
}

impl Advertisements {
    fn arrivals(mut self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let (_, taken) = oneshot::channel();
        std::mem::replace(&mut self.arrivals, taken).blocking_recv().unwrap()
    }
}

impl Drop for Advertisements {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn capture(source: Ipv4Addr, stop: &AtomicBool, heard: &AtomicUsize) -> io::Result<Vec<Duration>> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(VRRP)))?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    socket.set_read_timeout(Some(LOOK))?;
    let mut arrivals = Vec::new();
    let mut packet = [0; 256];
    let mut control = nix::cmsg_space!(libc::timespec);
    while !stop.load(Ordering::Relaxed) {
        let mut parts = [io::IoSliceMut::new(&mut packet)];
        let received =
            recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let message = match received {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if message.address.is_some_and(|from| from.ip() == source) {
            let stamps = message.cmsgs()?.filter_map(|part| match part {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                _ => None,
            });
            arrivals.extend(stamps);
            heard.store(arrivals.len(), Ordering::Relaxed);
        }
    }
    Ok(arrivals)
}
