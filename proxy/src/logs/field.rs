//! What a format can name: HAProxy 2.6's variables (configuration manual, section 8.2.6) and the sample fetches that
//! Octavia and its users name in `user_log_format`.

/// What a listener speaks, as far as its log is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HAProxy's `mode http`.
    Http,
    /// HAProxy's `mode tcp`.
    Tcp,
}

/// `(ssl_c_s_dn)` or one of its attributes: `ssl_c_s_dn(cn)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `/C=FR/O=example/CN=client`.
    Whole,
    /// `CN`.
    CommonName,
    /// `O`.
    Organization,
    /// `OU`.
    OrganizationalUnit,
}

/// A sample fetch (section 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// `ssl_c_verify`: what verifying the client's certificate has come to, by OpenSSL's number.
    ClientVerify,
    /// `ssl_c_used`: whether the client has shown a certificate, in this session or in the one that it resumes.
    ClientUsed,
    /// `ssl_c_s_dn`: the subject of the client's certificate.
    ClientSubject(Name),
    /// `ssl_c_i_dn`: its issuer.
    ClientIssuer,
    /// `ssl_c_sha1,hex`: its digest.
    ClientSha1,
    /// `ssl_c_notbefore`: from when on it is valid, as `YYMMDDhhmmssZ`.
    ClientNotBefore,
    /// `ssl_c_notafter`: until when.
    ClientNotAfter,
    /// `ssl_fc`: whether the connection is encrypted.
    Tls,
    /// `ssl_fc_protocol`: as `%sslv`.
    TlsVersion,
    /// `ssl_fc_cipher`: as `%sslc`.
    TlsCipher,
    /// `ssl_fc_sni`: the name that the client has asked for.
    TlsServerName,
    /// `ssl_fc_alpn`: the protocol that was agreed upon.
    TlsAlpn,
    /// `ssl_fc_is_resumed`.
    TlsResumed,
    /// `src`: as `%ci`.
    Source,
    /// `src_port`: as `%cp`.
    SourcePort,
    /// `dst`: as `%fi`.
    Destination,
    /// `dst_port`: as `%fp`.
    DestinationPort,
    /// `fe_name`: as `%f`.
    FrontendName,
    /// `be_name`: as `%b`.
    BackendName,
    /// `capture.req.method`.
    RequestMethod,
    /// `capture.req.uri`: the target's path and query, also of one with scheme and host.
    RequestUri,
    /// `capture.req.ver`: `HTTP/1.0` or `HTTP/1.1`.
    RequestVersion,
    /// `var(txn.traceparent)`: the request's place in a trace, on a listener that begins traces.
    Traceparent,
}

/// Each sample by its name.
pub const SAMPLES: &[(&str, Sample)] = &[
    ("ssl_c_verify", Sample::ClientVerify),
    ("ssl_c_used", Sample::ClientUsed),
    ("ssl_c_s_dn", Sample::ClientSubject(Name::Whole)),
    ("ssl_c_s_dn(cn)", Sample::ClientSubject(Name::CommonName)),
    ("ssl_c_s_dn(o)", Sample::ClientSubject(Name::Organization)),
    ("ssl_c_s_dn(ou)", Sample::ClientSubject(Name::OrganizationalUnit)),
    ("ssl_c_i_dn", Sample::ClientIssuer),
    ("ssl_c_sha1,hex", Sample::ClientSha1),
    ("ssl_c_notbefore", Sample::ClientNotBefore),
    ("ssl_c_notafter", Sample::ClientNotAfter),
    ("ssl_fc", Sample::Tls),
    ("ssl_fc_protocol", Sample::TlsVersion),
    ("ssl_fc_cipher", Sample::TlsCipher),
    ("ssl_fc_sni", Sample::TlsServerName),
    ("ssl_fc_alpn", Sample::TlsAlpn),
    ("ssl_fc_is_resumed", Sample::TlsResumed),
    ("src", Sample::Source),
    ("src_port", Sample::SourcePort),
    ("dst", Sample::Destination),
    ("dst_port", Sample::DestinationPort),
    ("fe_name", Sample::FrontendName),
    ("be_name", Sample::BackendName),
    ("capture.req.method", Sample::RequestMethod),
    ("capture.req.uri", Sample::RequestUri),
    ("capture.req.ver", Sample::RequestVersion),
    ("var(txn.traceparent)", Sample::Traceparent),
];

impl Sample {
    /// The one with this name; those of TLS in either case in their argument, as HAProxy takes it.
    pub(super) fn named(expression: &[u8]) -> Option<Self> {
        let has = |(name, _): &&(&str, Sample)| match name.split_once('(') {
            None => name.as_bytes() == expression,
            Some((fetch, _)) => {
                expression.starts_with(fetch.as_bytes()) && expression.eq_ignore_ascii_case(name.as_bytes())
            }
        };
        SAMPLES.iter().find(has).map(|(_, sample)| *sample)
    }

    pub(super) fn is_of_tls(self) -> bool {
        match self {
            Self::ClientVerify
            | Self::ClientUsed
            | Self::ClientSubject(_)
            | Self::ClientIssuer
            | Self::ClientSha1
            | Self::ClientNotBefore
            | Self::ClientNotAfter
            | Self::Tls
            | Self::TlsVersion
            | Self::TlsCipher
            | Self::TlsServerName
            | Self::TlsAlpn
            | Self::TlsResumed => true,
            Self::Source
            | Self::SourcePort
            | Self::Destination
            | Self::DestinationPort
            | Self::FrontendName
            | Self::BackendName
            | Self::RequestMethod
            | Self::RequestUri
            | Self::RequestVersion
            | Self::Traceparent => false,
        }
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// A variable, or a sample.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $($(#[$doc])* #[doc = concat!("(`%", $text, "`)")] $name,)*
            /// `%[name]`.
            Sample(Sample),
        }

        /// Each variable by its name.
        pub const FIELDS: &[(&str, Field)] = &[$(($text, Field::$name)),*];
    };
}

fields! {
    /// Bytes from the member to the client.
    BytesToClient = "B",
    /// What `capture cookie` has of the request: nothing here has that.
    RequestCookie = "CC",
    /// The same of the response.
    ResponseCookie = "CS",
    /// The machine's name.
    Hostname = "H",
    /// The request's method.
    Method = "HM",
    /// Its target without the query.
    Path = "HP",
    /// The path alone.
    PathOnly = "HPO",
    /// The query with its question mark.
    Query = "HQ",
    /// The target.
    Uri = "HU",
    /// The version.
    Version = "HV",
    /// The id of the request, on a listener that has them: what `unique-id-format` makes.
    UniqueId = "ID",
    /// The response's status; 0 without one.
    Status = "ST",
    /// When the connection was accepted, or could take the next request; GMT.
    AcceptedGmt = "T",
    /// Milliseconds from the request's first byte to the end.
    ActiveTime = "Ta",
    /// Until a connection to the member was there.
    ConnectTime = "Tc",
    /// The transfer of the response's data.
    DataTime = "Td",
    /// Handshakes of the client's connection.
    HandshakeTime = "Th",
    /// Before the request's first byte.
    IdleTime = "Ti",
    /// When it was accepted; local time.
    AcceptedLocal = "Tl",
    /// `Th + Ti + TR`.
    TotalRequestTime = "Tq",
    /// From the first byte of the request to the end of its head.
    RequestTime = "TR",
    /// Until the head of the response was there.
    ResponseTime = "Tr",
    /// When it was accepted, in seconds since 1970.
    Timestamp = "Ts",
    /// All together.
    TotalTime = "Tt",
    /// The same without what was idle.
    UserTime = "Tu",
    /// In queues: there are none here.
    QueueTime = "Tw",
    /// Bytes from the client.
    BytesFromClient = "U",
    /// Connections of all clients.
    ProcessConnections = "ac",
    /// The pool and its listener, as Octavia calls it, or the listener.
    Backend = "b",
    /// Sessions or requests of the pool.
    BackendConnections = "bc",
    /// Where the member's connection comes from.
    BackendAddress = "bi",
    /// Its port.
    BackendPort = "bp",
    /// The place in the pool's queue.
    BackendQueue = "bq",
    /// The client's address.
    ClientAddress = "ci",
    /// The client's port.
    ClientPort = "cp",
    /// The listener.
    Frontend = "f",
    /// Connections of the listener.
    FrontendConnections = "fc",
    /// Where the client has connected to.
    FrontendAddress = "fi",
    /// The port of that.
    FrontendPort = "fp",
    /// The listener, with `~` when it terminates TLS.
    FrontendTransport = "ft",
    /// What `capture request header` has: nothing here has that.
    RequestHeaders = "hr",
    /// The same for CLF.
    RequestHeadersList = "hrl",
    /// What `capture response header` has: nothing here has that.
    ResponseHeaders = "hs",
    /// The same for CLF.
    ResponseHeadersList = "hsl",
    /// Lines of this listener's log before this one.
    LogCounter = "lc",
    /// The milliseconds of when it was accepted.
    AcceptedMilliseconds = "ms",
    /// The process.
    Process = "pid",
    /// The request line.
    Request = "r",
    /// Attempts after the first, with `+` when another member got it at last.
    Retries = "rc",
    /// Requests, or connections without any, before this one.
    RequestCounter = "rt",
    /// The member.
    Server = "s",
    /// Sessions or requests of the member.
    ServerConnections = "sc",
    /// The member's address.
    ServerAddress = "si",
    /// The member's port.
    ServerPort = "sp",
    /// The place in the member's queue.
    ServerQueue = "sq",
    /// The client's cipher.
    TlsCipher = "sslc",
    /// The client's version of TLS.
    TlsVersion = "sslv",
    /// When it was accepted.
    Accepted = "t",
    /// When the request's first byte was there.
    Requested = "tr",
    /// The same; GMT.
    RequestedGmt = "trg",
    /// The same; local time with its offset.
    RequestedLocal = "trl",
    /// How the session ended, in two letters.
    Termination = "ts",
    /// The same, and what became of the persistence cookie.
    TerminationCookie = "tsc",
}

impl Field {
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        FIELDS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, field)| *field)
    }

    /// It has no meaning without HTTP: `H` in the manual's table, and the status, which Octavia replaces, too.
    pub(super) fn is_of_http(self) -> bool {
        matches!(
            self,
            Self::RequestCookie
                | Self::ResponseCookie
                | Self::Method
                | Self::Path
                | Self::PathOnly
                | Self::Query
                | Self::Uri
                | Self::Version
                | Self::Status
                | Self::ActiveTime
                | Self::IdleTime
                | Self::TotalRequestTime
                | Self::RequestTime
                | Self::ResponseTime
                | Self::Request
                | Self::Requested
                | Self::RequestedGmt
                | Self::RequestedLocal
                | Self::Sample(Sample::RequestMethod | Sample::RequestUri | Sample::RequestVersion)
        )
    }
}
