//! What there may be too much of, and what is wrong.

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Excess {
    /// PING.
    Pings,
    /// SETTINGS or GOAWAY, or settings in one frame.
    Settings,
    /// PRIORITY, or frames of types that are not known.
    Priorities,
    /// WINDOW_UPDATE.
    WindowUpdates,
    /// WINDOW_UPDATE for next to nothing.
    SmallIncrements,
    /// RST_STREAM (CVE-2023-44487).
    Resets,
    /// DATA without data.
    EmptyData,
    /// DATA with next to no data.
    SmallData,
    /// Errors of the client's that we had to answer with RST_STREAM (CVE-2025-8671).
    ProvokedResets,
    /// CONTINUATION in a header block, or the bytes of one (CVE-2024-27316).
    HeaderBlock,
    /// What the connection makes us hold: its budget.
    Memory,
    /// What the library counts by itself.
    Library,
    /// Header blocks on streams that nobody has.
    StrayHeads,
}

impl Excess {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Pings,
        Self::Settings,
        Self::Priorities,
        Self::WindowUpdates,
        Self::SmallIncrements,
        Self::Resets,
        Self::EmptyData,
        Self::SmallData,
        Self::ProvokedResets,
        Self::HeaderBlock,
        Self::Memory,
        Self::Library,
        Self::StrayHeads,
    ];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::Priorities => "priorities",
            Self::WindowUpdates => "window_updates",
            Self::SmallIncrements => "small_increments",
            Self::Resets => "resets",
            Self::EmptyData => "empty_data",
            Self::SmallData => "small_data",
            Self::ProvokedResets => "provoked_resets",
            Self::HeaderBlock => "header_block",
            Self::Memory => "memory",
            Self::Library => "library",
            Self::StrayHeads => "stray_heads",
        }
    }
}

/// Why a connection is not served on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// ENHANCE_YOUR_CALM.
    Calm(Excess),
    /// An error of the connection, for a reason that is for logs.
    Fault(Fault, &'static str),
}

/// Errors of a connection (RFC 9113 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// PROTOCOL_ERROR.
    Protocol,
    /// FLOW_CONTROL_ERROR.
    FlowControl,
    /// STREAM_CLOSED.
    StreamClosed,
    /// FRAME_SIZE_ERROR.
    FrameSize,
    /// COMPRESSION_ERROR.
    Compression,
}

impl Fault {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Protocol, Self::FlowControl, Self::StreamClosed, Self::FrameSize, Self::Compression];
}
