//! The commands that talk to amphorae. Each takes its output as an argument, so that tests can read it.

pub(crate) mod certificate;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod heartbeats;
pub(crate) mod lb;
pub(crate) mod member;
pub(crate) mod peers;
pub(crate) mod stats;
pub(crate) mod vrrp;

use std::{
    fmt,
    io::{self, Write},
};

use amphora_model::LoadBalancerId;

use crate::{
    client::Client,
    error::{Error, Result},
};

/// The load balancer that was named, or the one that the amphora says it carries.
async fn resolve(client: &Client, id: Option<LoadBalancerId>) -> Result<LoadBalancerId> {
    if let Some(id) = id {
        return Ok(id);
    }
    let info = client.info().await?;
    info.get("loadbalancer").and_then(|v| v.as_str()).and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::Refused {
            amphora: client.endpoint().to_string(),
            status: 404,
            message: "it carries no load balancer".to_owned(),
            faults: Vec::new(),
        }
    })
}

/// A line on standard error. That it may be closed ends nothing.
fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Remembers the first error of several amphorae while the others are served.
#[derive(Debug, Default)]
struct Outcome(Option<Error>);

impl Outcome {
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            // Only the first is returned; the others would be lost if they were not told here.
            match &self.0 {
                None | Some(Error::OutputClosed) => self.0 = Some(error),
                Some(_) if matches!(error, Error::OutputClosed) => {}
                Some(_) => complain(format_args!("error: {error}")),
            }
        }
    }

    fn result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
