//! keepalived's text of a listener of datagrams, as Octavia's templates render it, to the listener and the pool that it was rendered
//! from. Each listener has a text of its own.
//!
//! All that the templates of Octavia 12.0.0 to 19.0.0, which are one and the same, can write is understood, and nothing else: a keyword, an
//! argument or a value that they do not write is refused with its line. `docs/octavia.md` has every keyword, and what rendering loses.
//!
//! A text is read line by line: `lines` (words), then a typed `statement`. Statements come in one order, and what is in braces belongs
//! together, so that `section` reads them one after the other and gives what each address family has; `finish` makes one listener of
//! the two families, which passes through the parser of the native API's documents.
//!
//! No string of a tenant's becomes a statement: the one that there is, the path of a health monitor, ends with its line, and what would
//! come behind it in another order than the templates' is refused.

mod finish;
mod fuzz;
mod lines;
mod section;
mod statement;

#[cfg(test)]
mod tests;

use amphora_model::{ListenerId, LoadBalancer, LoadBalancerId, MemberId, PoolId};

use self::section::Statements;
pub use self::{fuzz::fuzz, lines::MAX_TEXT};
pub use super::fault::Fault;

/// What a text begins with, and no haproxy.cfg: that has it in small letters.
pub const FIRST: &str = "# Configuration for Loadbalancer ";

/// What a text means.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// Whose listener it is.
    pub load_balancer: LoadBalancerId,
    /// The listener.
    pub listener: ListenerId,
    /// Whether the listener is enabled.
    pub enabled: bool,
    /// The load balancer with this listener and its pool alone; `None` when the text does not say where the listener is reached, as of one
    /// that is disabled or has no pool. Names are empty.
    pub served: Option<LoadBalancer>,
    /// The members of the pool that are disabled, of which nothing else is known.
    pub disabled: Vec<(PoolId, MemberId)>,
}

/// Reads a text.
///
/// # Errors
/// The first fault, with its line.
pub fn translate(text: &[u8]) -> Result<Translated, Fault> {
    if text.len() > MAX_TEXT {
        return Err(Fault::whole(format!("is longer than {MAX_TEXT} bytes")));
    }
    let statements = lines::lines(text).map(|line| statement::read(&line?)).collect::<Result<Vec<_>, _>>()?;
    section::text(&mut Statements::new(&statements))?.finish()
}
