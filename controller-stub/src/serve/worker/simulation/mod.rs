//! The worker with the API before it, the real database, and machines that end, hang, refuse and answer as a seed says. It is killed before and
//! after each thing that it does outside, and before and after each commit.
//!
//! | file | what |
//! | --- | --- |
//! | `ground` | the database and the machines |
//! | `api` | what is asked |
//! | `check` | what is never allowed |
//! | `steps` | the life of one load balancer, killed at every step |
//! | `boots` | what is asked while machines boot |
//! | `stubborn` | what is asked while an agent cannot be configured |
//! | [`history`] | many that ask, whatever happens |

#![allow(clippy::unwrap_used)]

mod api;
mod boots;
mod check;
mod ground;
mod history;
mod steps;
mod stubborn;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }
}
