//! The live view: who answers what, drawn over itself with plain ANSI.

use std::{
    io::{self, Write},
    time::Duration,
};

use amphora_agent::vrrp::Role;
use terminal_size::{Height, Width, terminal_size};

use super::{
    board::Inner,
    document::processes,
    exchange::Kind,
    tally::{Phase, Share},
};
use crate::style::{Colour, Style};

/// Alternate screen on, cursor off (xterm 1049, DECTCEM).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// And back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first line, without clearing: what is drawn over does not flicker.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line, and of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// How wide a bar of requests per second is.
const BAR: usize = 24;

/// The terminal while the view has it. Dropping it gives the terminal back as it was.
#[derive(Debug)]
pub(super) struct Screen(());

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter() -> Self {
        let _ = io::stdout().write_all(ENTER.as_bytes()).and_then(|()| io::stdout().flush());
        Self(())
    }

    /// Draws a frame that fits.
    pub(super) fn show(&self, frame: impl FnOnce(usize) -> Vec<String>) {
        let (width, height) = terminal_size().map_or((80, 24), |(Width(w), Height(h))| (w.into(), h.into()));
        let mut text = String::from(HOME);
        for (n, line) in frame(height).into_iter().take(height).enumerate() {
            text.push_str(if n == 0 { "" } else { "\r\n" });
            text.push_str(&clip(&line, width));
            text.push_str(CLEAR_LINE);
        }
        text.push_str(CLEAR_BELOW);
        let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = io::stdout().write_all(LEAVE.as_bytes()).and_then(|()| io::stdout().flush());
    }
}

/// Everything, in `height` lines at most. `before` is what `now` was `elapsed` ago.
pub(super) fn frame(
    board: &Inner,
    before: &Phase,
    now: &Phase,
    elapsed: Duration,
    height: usize,
    style: Style,
) -> Vec<String> {
    let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / elapsed.as_secs_f64().max(0.001);
    let ms = |q: f64| now.latency.quantile(q).map_or(0.0, |d| d.as_secs_f64() * 1e3);
    let mut lines = vec![
        format!("{}  {}", style.paint(Colour::Bold, "amphora demo"), style.paint(Colour::Dim, &board.place)),
        format!("now: {}", style.paint(Colour::Cyan, &board.doing)),
        String::new(),
    ];
    lines.extend(pair(board, style));
    lines.push(format!(
        "{:8} {:14} {:>7}  {:BAR$} {:>9} {:>9}",
        "MEMBER", "STATUS", "REQ/S", "", "BALANCED", "BY COOKIE"
    ));
    let rates: Vec<(&str, f64, Share)> = processes()
        .into_iter()
        .map(|(name, _)| {
            let share = |phase: &Phase| phase.members.get(name).copied().unwrap_or_default();
            (name, rate(share(now).total(), share(before).total()), share(now))
        })
        .collect();
    let most = rates.iter().map(|(_, rate, _)| *rate).fold(1.0, f64::max);
    for (name, rate, share) in rates {
        let status = board.members.get(name).map_or("-", String::as_str);
        let bar = "█".repeat((rate / most * BAR as f64).round() as usize);
        lines.push(format!(
            "{name:8} {:14} {rate:7.0}  {} {:>9} {:>9}",
            style.paint(Colour::of_status(status), status),
            style.paint(Colour::of_status(status), format!("{bar:BAR$}")),
            share.balanced,
            share.persistent,
        ));
    }
    let kind = |kind: Kind| now.kinds.get(&kind).copied().unwrap_or(0);
    lines.push(String::new());
    lines.push(format!(
        "policies: REDIRECT_TO_POOL {}  REJECT {}  REDIRECT_TO_URL {}  REDIRECT_PREFIX {}",
        kind(Kind::Api),
        kind(Kind::Rejected),
        kind(Kind::Moved),
        kind(Kind::Docs)
    ));
    let broken = format!("lost {}, wrong {}, closed {}", now.lost, now.wrong, now.closed);
    lines.push(format!(
        "clients:  {:.0} requests/s, p50 {:.2} ms, p99 {:.2} ms; {} answered, {}",
        rate(now.requests(), before.requests()),
        ms(0.5),
        ms(0.99),
        now.answered,
        style.paint(if now.is_clean() { Colour::Green } else { Colour::Red }, broken),
    ));
    lines.push(format!(
        "heartbeats: {} verified; checks: {} true, {}",
        board.heartbeats,
        board.held,
        style.paint(
            if board.failed.is_empty() { Colour::Green } else { Colour::Red },
            format!("{} not", board.failed.len())
        )
    ));
    lines.push(String::new());
    let room = height.saturating_sub(lines.len());
    let skip = board.lines.len().saturating_sub(room);
    lines.extend(board.lines[skip..].iter().map(|line| line.show(style)));
    lines
}

/// The amphorae of the pair, and what its client saw since the last thing happened.
fn pair(board: &Inner, style: Style) -> Vec<String> {
    if board.pair.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("{:10} {:12} {}", "AMPHORA", "VRRP", "HEALTH")];
    for (name, peer) in &board.pair {
        let colour = match peer.role {
            Some(Role::Master) => Colour::Green,
            Some(Role::Backup) => Colour::Cyan,
            _ => Colour::Red,
        };
        let (health, well) =
            if peer.healthy { ("healthy", Colour::Green) } else { ("not healthy", Colour::Red) };
        lines.push(format!(
            "{name:10} {:12} {}",
            style.paint(colour, peer.role_name()),
            style.paint(well, health)
        ));
    }
    let seen = board.pair_client.now();
    let colour = if seen.lost == 0 { Colour::Green } else { Colour::Red };
    lines.push(format!("its client: {} answered, {}", seen.answered, style.paint(colour, seen.told())));
    lines.push(String::new());
    lines
}

/// The first `width` characters that show, with every escape sequence kept, so that a colour that begins also ends.
fn clip(line: &str, width: usize) -> String {
    let mut out = String::with_capacity(line.len());
    let mut shown = 0;
    let mut escape = false;
    for c in line.chars() {
        if c == '\x1b' {
            escape = true;
        }
        if escape || shown < width {
            out.push(c);
        }
        if escape {
            escape = c != 'm';
        } else {
            shown += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::board::{Board, Peer},
        *,
    };

    #[test]
    fn a_frame_fits_and_shows_every_member() {
        let board = Board::new(false, Style::PLAIN);
        board.step("a step");
        (0..50).for_each(|n| board.note(format!("note {n}")));
        board.check(false, "a check");
        board.read().members.insert("web-2".into(), "ERROR".into());
        let mut now = Phase::default();
        now.members.insert("web-1".into(), Share { balanced: 30, persistent: 10 });
        let lines = frame(&board.read(), &Phase::default(), &now, Duration::from_secs(2), 30, Style::PLAIN);
        assert_eq!(lines.len(), 30);
        let text = lines.join("\n");
        for (name, _) in processes() {
            assert!(text.contains(name), "{name}");
        }
        assert!(text.contains("web-1    -                   20"), "{text}");
        assert!(text.contains("ERROR") && text.contains("1 not") && text.contains("NO a check"), "{text}");
        assert!(!text.contains("note 10") && text.contains("note 49"), "the newest lines are shown");
    }

    #[test]
    fn a_frame_shows_the_pair_while_there_is_one() {
        let board = Board::new(false, Style::PLAIN);
        let show = || {
            let (before, now) = (Phase::default(), Phase::default());
            frame(&board.read(), &before, &now, Duration::from_secs(1), 30, Style::PLAIN).join("\n")
        };
        assert!(!show().contains("VRRP"), "{}", show());
        let master = Peer { role: Some(Role::Master), vrrp: Some(1), healthy: true };
        board.read().pair = [("amphora-1", Peer::default()), ("amphora-2", master)].into();
        let text = show();
        assert!(text.contains("amphora-1  no answer    not healthy"), "{text}");
        assert!(text.contains("amphora-2  MASTER       healthy"), "{text}");
        assert!(text.contains("its client: 0 answered, outage 0 ms, 0 of 0 requests lost"), "{text}");
    }

    #[test]
    fn clipping_keeps_colours_whole() {
        assert_eq!(clip("\x1b[31mabcdef\x1b[0m!", 3), "\x1b[31mabc\x1b[0m");
        assert_eq!(clip("ab", 3), "ab");
        assert_eq!(clip("├─é", 2), "├─");
    }
}
