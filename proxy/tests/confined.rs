//! What whoever takes the proxy over can do: this program takes its place, confines itself as the proxy does, and tries.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests may block")]
#![allow(unsafe_code, reason = "system calls that no library makes for good")]

use std::{
    env, fs,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{PermissionsExt, chown},
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::Command,
};

use amphora_proxy::privileges::{self, Sockets};
use amphora_sandbox::Files;
use nix::libc;

/// Says to the program that it is to take the proxy's place, and where everything is.
const PLACE: &str = "AMPHORA_TEST_CONFINED_IN";

#[test]
fn whoever_takes_the_proxy_over_can_do_little() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: not root, so there is no other user to become");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.join("state")).unwrap();
    let write = |name: &str, mode| {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("state/loadbalancer.json", 0o640);
    chown(root.join("state/loadbalancer.json"), None, Some(nobody().1)).unwrap();
    // The agent's key, and what is for everybody but not for the proxy.
    write("server.pem", 0o600);
    write("open", 0o666);
    write("amphora-proxy.lock", 0o600);
    write("proxy.sock", 0o660);
    // What everybody may connect to: a daemon of the same user, a system's bus, its journal.
    let _streams = UnixListener::bind(root.join("stream.sock")).unwrap();
    let _datagrams = UnixDatagram::bind(root.join("datagram.sock")).unwrap();
    for name in ["stream.sock", "datagram.sock"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    let done = Command::new(env::current_exe().unwrap())
        .args(["--exact", "takes_its_place", "--ignored", "--nocapture", "--test-threads", "1"])
        .env(PLACE, root)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&done.stdout);
    let could: Vec<_> =
        output.lines().filter_map(|line| line.split_once("CAN ")).map(|(_, what)| what).collect();
    let expected = [
        "read its document",
        "look at its own threads",
        "hold two ends of a stream",
        "open a socket",
        "start a thread",
        "signal itself",
    ];
    assert_eq!(could, expected, "{output}\n{}", String::from_utf8_lossy(&done.stderr));
}

fn nobody() -> (u32, u32) {
    let account = amphora_sandbox::Account::named("nobody").unwrap();
    (account.uid().as_raw(), account.gid().as_raw())
}

/// Run by the test above, in a process of its own.
#[test]
#[ignore = "gives up what this process needs"]
fn takes_its_place() {
    let Some(root) = env::var_os(PLACE) else { return };
    let root = Path::new(&root);
    let parent = nix::unistd::getppid().as_raw();
    let netns = fs::File::open("/proc/self/ns/net").unwrap();
    let terminal = fs::File::open("/dev/null").unwrap();
    let socket = root.join("proxy.sock");
    let sockets = Sockets { control: &socket, fitness: &socket, fitness_user: None };
    let files = Files::none().read(root.join("state"));
    privileges::confine(Some("nobody"), &sockets, files).unwrap();

    let report = |what: &str, could: bool| println!("{} {what}", if could { "CAN" } else { "cannot" });
    report("read its document", fs::read(root.join("state/loadbalancer.json")).is_ok());
    report("read the agent's key", fs::read(root.join("server.pem")).is_ok());
    report("read what is for everybody", fs::read(root.join("open")).is_ok());
    report("write what is for everybody", fs::write(root.join("open"), "x").is_ok());
    report("make a file", fs::write(root.join("state/made"), "x").is_ok());
    report("write what the agent believes", fs::write(root.join("amphora-proxy.lock"), "1 1").is_ok());
    // SAFETY: it touches no memory.
    let own =
        unsafe { format!("/proc/{}/task/{}/schedstat", libc::getpid(), libc::syscall(libc::SYS_gettid)) };
    report("look at its own threads", fs::read(own).is_ok());
    report(
        "look at others",
        fs::read(format!("/proc/{parent}/environ")).is_ok()
            || fs::read(format!("/proc/{parent}/stat")).is_ok(),
    );
    report("read users", fs::read("/etc/passwd").is_ok());
    // SAFETY: none of these touches memory of this process.
    unsafe {
        let call = |what: &str, result: libc::c_long| report(what, result >= 0);
        call("enter a namespace", libc::syscall(libc::SYS_setns, netns.as_raw_fd(), libc::CLONE_NEWNET));
        call("make a namespace", libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER));
        call("signal its parent", libc::syscall(libc::SYS_kill, parent, 0));
        call("signal a thread of its parent", libc::syscall(libc::SYS_tgkill, parent, parent, 0));
        call("hold its parent", libc::syscall(libc::SYS_pidfd_open, parent, 0));
        call("trace its parent", libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, parent, 0, 0));
        call("fork", {
            let child = libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
            if child == 0 {
                libc::_exit(0);
            }
            child
        });
        call("become root", libc::syscall(libc::SYS_setuid, 0));
        call("send any packet", libc::syscall(libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, 0));
        call("run what it wrote", {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let mapped = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0);
            if mapped == libc::MAP_FAILED { -1 } else { 0 }
        });
        call("load code into the kernel", libc::syscall(libc::SYS_bpf, 0, 0, 0));
        call("mount", libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0));
        call(
            "raise its limits over others",
            libc::syscall(libc::SYS_prlimit64, parent, libc::RLIMIT_NOFILE, 0, 0),
        );
    }
    report(
        "write to its own memory as a file",
        fs::File::options().write(true).open("/proc/self/mem").is_ok(),
    );
    report("open what it was given once more", fs::read("/proc/self/fd/0").is_ok());
    report("open a device", fs::File::open("/dev/null").is_ok());
    report("connect to a socket of everybody's", UnixStream::connect(root.join("stream.sock")).is_ok());
    report("hold two ends of a stream", UnixStream::pair().is_ok());
    report(
        "send a datagram to a socket of everybody's",
        UnixDatagram::unbound().is_ok()
            || UnixDatagram::pair()
                .is_ok_and(|(one, _other)| one.send_to(b"x", root.join("datagram.sock")).is_ok()),
    );
    // SAFETY: none of these gets beyond its number and the flags, which is what is refused.
    unsafe {
        let other = terminal.as_raw_fd();
        let calls: [(&str, libc::c_long); 25] = [
            ("have another signalled", libc::syscall(libc::SYS_fcntl, 0, libc::F_SETOWN, parent)),
            ("slow its user's processes", libc::syscall(libc::SYS_setpriority, libc::PRIO_USER, 0, 19)),
            ("slow its parent", libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, parent, 19)),
            ("keep its parent on no core", libc::syscall(libc::SYS_sched_setaffinity, parent, 0, 0)),
            ("read its parent's memory", libc::syscall(libc::SYS_process_vm_readv, parent, 0, 0, 0, 0, 0)),
            ("take its parent's files", libc::syscall(libc::SYS_pidfd_getfd, 0, 0, 0)),
            ("compare with its parent", libc::syscall(libc::SYS_kcmp, libc::getpid(), parent, 0, 0, 0)),
            (
                "talk to the packet filter",
                libc::syscall(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 12),
            ),
            (
                "use the kernel's ciphers",
                libc::syscall(libc::SYS_socket, libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            ),
            ("queue I/O", libc::syscall(libc::SYS_io_uring_setup, 1, 0)),
            ("count events", libc::syscall(libc::SYS_perf_event_open, 0, 0, -1, -1, 0)),
            ("use keys", libc::syscall(libc::SYS_keyctl, 0, -3, 0)),
            ("handle page faults", libc::syscall(libc::SYS_userfaultfd, 0)),
            ("make a file in memory", libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0)),
            ("clone with flags out of sight", libc::syscall(libc::SYS_clone3, 0, 0)),
            ("type into a terminal", libc::syscall(libc::SYS_ioctl, other, libc::TIOCSTI, c"x".as_ptr())),
            ("own a terminal's signals", libc::syscall(libc::SYS_ioctl, other, 0x8901, 0)),
            ("make memory executable", libc::syscall(libc::SYS_mprotect, 0, 0, libc::PROT_EXEC)),
            ("make memory executable by a key", libc::syscall(libc::SYS_pkey_mprotect, 0, 0, 4, -1)),
            ("have all memory executable", libc::syscall(libc::SYS_personality, 0x0040_0000)),
            ("dump its core", libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0)),
            ("change its root", libc::syscall(libc::SYS_chroot, c"/".as_ptr())),
            ("become a leader", libc::syscall(libc::SYS_setsid)),
            ("let its lock go", libc::syscall(libc::SYS_flock, 0, libc::LOCK_UN)),
            // x32 of x86-64: another list of numbers beside the usual one.
            ("use other numbers", libc::syscall(0x4000_0000 | libc::SYS_getpid)),
        ];
        calls.into_iter().for_each(|(what, result)| report(what, result >= 0));
    }
    report("run a program", Command::new("/bin/true").status().is_ok());
    report("open a socket", std::net::TcpListener::bind("127.0.0.1:0").is_ok());
    report("start a thread", std::thread::Builder::new().spawn(|| {}).is_ok_and(|t| t.join().is_ok()));
    // SAFETY: signal 0 is none.
    let own = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), 0) };
    report("signal itself", own == 0);
}
