//! What the data plane needs of the kernel and of time: listening sockets, pooled buffers and pipes, the PROXY
//! protocol, deadlines, and the seam between plain connections and encrypted ones.
//!
//! Pools belong to one worker (`Rc`, never shared between threads). No `unsafe`: `nix`, `socket2` and `crate::sys` wrap the
//! system calls.

mod buffer;
mod deadline;
mod listen;
mod pipe;
pub mod proxy_protocol;
mod stream;

pub use self::{
    buffer::{BUFFER_SIZE, Buffer, BufferPool},
    deadline::{Deadline, now},
    listen::{BindError, BoundListener, NewListener, bind, bind_for_workers, let_in_again, let_nobody_in},
    pipe::{PIPE_SIZE, Pipe, PipePool},
    stream::Stream,
};
pub(crate) use self::{
    listen::may_keep_out_without,
    stream::{Then, end, poll_write, poll_write_two, read_ready},
};

/// A worker's pools; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    /// Buffers of 16 KiB.
    pub buffers: BufferPool,
    /// Pipes for splice(2).
    pub pipes: PipePool,
}

impl Pools {
    /// With at most so many pipes.
    pub fn with_pipes(pipes: usize) -> Self {
        Self { buffers: BufferPool::default(), pipes: PipePool::at_most(pipes) }
    }
}
