//! Where this amphora answers otherwise than Octavia's own did when it was recorded, and why. `docs/agent.md` has the reasons, word for word.

/// A group of requests that are answered otherwise for one reason.
#[derive(Debug)]
pub(crate) struct Difference {
    /// The recording; both without.
    pub(crate) topology: Option<&'static str>,
    /// Lines of it, from 1.
    pub(crate) lines: &'static [usize],
    /// The status of the answer.
    pub(crate) status: u16,
    /// As in the documentation.
    pub(crate) reason: &'static str,
}

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        topology: None,
        lines: &[11, 14, 28, 91, 93, 103, 126],
        status: 200,
        reason: "there is no ipvsadm",
    },
    Difference {
        topology: None,
        lines: &[31],
        status: 409,
        reason: "a MAC address is one in either case, so that the port is plugged already",
    },
    Difference {
        topology: Some("single"),
        lines: &[43, 47],
        status: 200,
        reason: "a network of members beside the VIPs takes none of them away",
    },
    Difference {
        topology: None,
        lines: &[55],
        status: 400,
        reason: "a rule with a network that is none is a fault of the request",
    },
    Difference {
        topology: None,
        lines: &[72],
        status: 200,
        reason: "a file that is not UTF-8 has an MD5, too",
    },
    Difference {
        topology: None,
        lines: &[85],
        status: 400,
        reason: "a text that is not UTF-8 is a fault of the request",
    },
    Difference {
        topology: None,
        lines: &[90],
        status: 200,
        reason: "a listener that was uploaded and not started is OFFLINE",
    },
    Difference {
        topology: None,
        lines: &[100],
        status: 200,
        reason: "a text is kept as it came, and its ETag stays what the upload said",
    },
    Difference {
        topology: Some("single"),
        lines: &[112, 113, 118],
        status: 503,
        reason: "a SINGLE amphora has no VRRP daemon to start",
    },
    Difference {
        topology: Some("single"),
        lines: &[114, 115, 116],
        status: 500,
        reason: "a SINGLE amphora has no VRRP daemon to start",
    },
    Difference {
        topology: None,
        lines: &[117],
        status: 400,
        reason: "a keepalived.conf that is not understood is refused when it comes, and what ran runs on",
    },
    Difference {
        topology: None,
        lines: &[120],
        status: 400,
        reason: "the pool of the UDP listener has the id of one of HTTP there, which no load balancer has",
    },
    Difference {
        topology: None,
        lines: &[121, 122, 123, 127],
        status: 404,
        reason: "the pool of the UDP listener has the id of one of HTTP there, which no load balancer has",
    },
    Difference {
        topology: None,
        lines: &[125],
        status: 200,
        reason: "the pool of the UDP listener has the id of one of HTTP there, which no load balancer has",
    },
    Difference {
        topology: None,
        lines: &[135, 136],
        status: 400,
        reason: "a configuration is read whole before it is written",
    },
    Difference {
        topology: None,
        lines: &[140],
        status: 400,
        reason: "what is no key with its certificate does not become the agent's own",
    },
    Difference {
        topology: None,
        lines: &[141, 142],
        status: 200,
        reason: "the agent is not locked out by it",
    },
    Difference { topology: None, lines: &[143], status: 202, reason: "the agent is not locked out by it" },
];
