//! The demo: one amphora with members and clients on this host, then a pair, then `serve` with a pair of its own, put through what an operator fears, with
//! every answer checked.
//!
//! * `topology`, `netns`: where everything is, and how nothing of it stays
//! * `process`, `member`, `amphora`: the programs
//! * `document`: the load balancer and its variants
//! * `exchange`, `sender`, `tally`, `traffic`, `worker`: the clients and what they saw
//! * `board`, `view`: what is known and shown
//! * `stage`, `steps`: the scenario
//! * `steering`: several pools and rate limits
//! * `secure`: TLS and HTTP/2
//! * `pair`: the same for two amphorae
//! * `serve`: the control plane, and what is asked of it through its API

mod amphora;
mod board;
mod document;
mod exchange;
mod member;
mod netns;
mod pair;
mod process;
mod secure;
mod sender;
mod serve;
mod stage;
mod steering;
mod steps;
mod tally;
mod topology;
mod traffic;
mod view;
mod worker;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    board::Board,
    stage::Stage,
    traffic::Counts,
    view::{Screen, frame},
};
pub use self::{
    member::{MemberOptions, run_member},
    process::{LeashOptions, run_leashed},
    serve::{RoomOptions, run_room},
};
use crate::{
    cli::numbers::whole,
    error::{Error, Result},
    runtime::runtime,
    style::{Colour, Style},
};

/// A member says its name and its pool in these headers.
const HEADER_MEMBER: &str = "x-member";
/// See [`HEADER_MEMBER`].
const HEADER_POOL: &str = "x-pool";
/// A member that was spoken to over TLS says here with which version, and which host was asked for by SNI.
const HEADER_TLS: &str = "x-member-tls";
/// What health monitors ask members for.
const HEALTH_PATH: &str = "/health";

/// How often the view is drawn.
const FRAME: Duration = Duration::from_millis(200);

/// What the demo is told.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
As root it builds network namespaces with a real VIP and removes them, and shows a pair after the one amphora, and `serve` after the pair; \
otherwise, or where namespaces are not permitted, everything runs on 127.0.0.1, without these. Without --once it repeats until Ctrl-C. Either way it leaves nothing behind. \
It exits with 0 only if all that it showed was true, and with 4 if something was not; Ctrl-C ends --once with 130, and \
without --once it asks for that verdict.")]
pub struct Options {
    /// One pass, then end
    #[arg(long)]
    once: bool,
    /// Plain lines also on a terminal
    #[arg(long)]
    plain: bool,
    /// No network namespaces, also as root
    #[arg(long)]
    loopback: bool,
    /// Configuration changes under load, in each pass
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole(1_u32, 100_000))]
    changes: u32,
    /// Clients
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = whole(6_u32, 1000))]
    clients: u32,
    /// Requests per second of all clients together
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = whole(50_u32, 1_000_000))]
    rate: u32,
    #[command(flatten)]
    programs: Programs,
}

/// The programs of an amphora.
#[derive(Args, Clone, Debug)]
pub(crate) struct Programs {
    /// amphora-agent [default: beside this program]
    #[arg(long, value_name = "FILE", env = "AMPHORA_AGENT_BIN")]
    agent: Option<PathBuf>,
    /// amphora-proxy [default: beside the agent]
    #[arg(long, value_name = "FILE", env = "AMPHORA_PROXY_BIN")]
    proxy: Option<PathBuf>,
    /// amphora-vrrp [default: beside the agent]
    #[arg(long, value_name = "FILE", env = "AMPHORA_VRRP_BIN")]
    vrrp: Option<PathBuf>,
}

/// Runs the demo.
///
/// # Errors
/// [`Error::NotTrue`] when a check did not hold, [`Error::Local`] when the host did not allow it,
/// [`Error::Interrupted`] when a signal ended `--once` early, [`Error::OutputClosed`] when nobody reads any more.
pub fn run(options: &Options) -> Result<()> {
    runtime()?.block_on(play(options))
}

async fn play(options: &Options) -> Result<()> {
    let style = Style::of(&io::stdout());
    let live = io::stdout().is_terminal() && !options.plain && style != Style::PLAIN;
    let board = Board::new(!live, style);
    let counts = Counts::default();
    let mut signals = Signals::new()?;
    let screen = live.then(Screen::enter);
    let mut stage = Stage::new(options.clone(), board.clone(), counts.clone());

    let result = tokio::select! {
        result = stage.run() => result,
        number = signals.next() => Err(Error::Interrupted(number)),
        () = draw(screen.as_ref(), &board, &counts, style) => Ok(()),
    };
    // On Ctrl-C the continuous demo has shown what it was asked to show; the verdict still has to be told.
    let (result, interrupted) = match result {
        Err(Error::Interrupted(_)) if !options.once => (Ok(()), true),
        other => (other, false),
    };
    stage.tear_down(interrupted).await;
    drop(screen);
    if live {
        board.read().lines.iter().for_each(|line| tell(&line.show(style)));
    }
    let as_wished = matches!(result, Ok(()) | Err(Error::Interrupted(_) | Error::OutputClosed));
    let wrong = !as_wished || !board.read().failed.is_empty();
    if wrong {
        stage.show_logs();
    }
    drop(stage);
    result?;
    verdict(&board, style)
}

/// A line on standard output. That it may be gone ends nothing: there is still the exit code.
fn tell(line: &dyn std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The last line, and the exit code.
fn verdict(board: &Board, style: Style) -> Result<()> {
    let board = board.read();
    if board.failed.is_empty() {
        tell(&style.paint(Colour::Green, format!("all {} checks held", board.held)));
        return Ok(());
    }
    let list: String = board.failed.iter().map(|text| format!("\n  {text}")).collect();
    Err(Error::NotTrue(format!(
        "{} of {} checks did not hold:{list}",
        board.failed.len(),
        board.failed.len() + board.held as usize
    )))
}

/// Draws the view for ever; without a screen it only waits.
async fn draw(screen: Option<&Screen>, board: &Board, counts: &Counts, style: Style) {
    let Some(screen) = screen else { return std::future::pending().await };
    let mut before = (Instant::now(), counts.tally().total());
    let mut shown = before.clone();
    let mut tick = tokio::time::interval(FRAME);
    loop {
        tick.tick().await;
        let now = counts.tally().total();
        // Rates are over the last second, so that they do not flicker.
        if shown.0.elapsed() >= Duration::from_secs(1) {
            before = std::mem::replace(&mut shown, (Instant::now(), now.clone()));
        }
        screen.show(|height| frame(&board.read(), &before.1, &now, before.0.elapsed(), height, style));
    }
}

/// The signals that end the demo.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::local("signals", e));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        };
        u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX)
    }
}
