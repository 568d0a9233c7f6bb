//! Why a change did not come about, to the load balancer, to VRRP or to the peer.

use std::io;

use amphora_ipc::client::{ControlError, Daemon, Failure};
use amphora_model::{LoadBalancerId, Refusal};
use hyper::StatusCode;

/// Why a change did not come about. What was before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The document is faulty.
    #[error("{0}")]
    Invalid(Refusal),
    /// It cannot be honoured now, for one because a port is taken.
    #[error("{0}")]
    Conflict(Refusal),
    /// Another load balancer is here already.
    #[error(
        "this amphora carries load balancer {0}, and one at a time: remove that first (amphora-controller delete {0})"
    )]
    OtherLoadBalancer(LoadBalancerId),
    /// The load balancer came by the other API, which alone changes it.
    #[error("load balancer {id} came by {path}, and only requests there change it")]
    OtherApi {
        /// Which.
        id: LoadBalancerId,
        /// What the paths of that API begin with.
        path: &'static str,
    },
    /// The VRRP configuration came by the other API, which alone changes it.
    #[error("the VRRP configuration came by {path}, and only requests there change it, or DELETE /2.0/vrrp")]
    OtherVrrpApi {
        /// What the paths of that API begin with.
        path: &'static str,
    },
    /// There is no such load balancer.
    #[error("no such load balancer")]
    NoLoadBalancer,
    /// There is no such member in that pool.
    #[error("no such member in that pool")]
    NoMember,
    /// There is no such certificate.
    #[error("no such certificate")]
    NoCertificate,
    /// The present document names the certificate.
    #[error("the load balancer names this certificate")]
    CertificateInUse(Refusal),
    /// The proxy does not run, or takes nothing at present.
    #[error("{0}")]
    ProxyDown(String),
    /// The proxy did not say whether it took the change; it is being brought back to what was before.
    #[error("{0}")]
    ProxyLate(String),
    /// There is no VRRP configuration.
    #[error("this amphora has no VRRP configuration")]
    NoVrrp,
    /// Its virtual routers take no part, so that there is nothing to reload.
    #[error("the virtual routers are stopped, and nothing is reloaded")]
    VrrpStopped,
    /// What the VRRP daemon was asked does not fit what it is at present.
    #[error("{}", reasons(.0))]
    VrrpConflict(Refusal),
    /// The VRRP daemon does not run, or takes nothing at present.
    #[error("{0}")]
    VrrpDown(String),
    /// The VRRP daemon did not say whether it did what it was asked.
    #[error("{0}")]
    VrrpLate(String),
    /// The disk did not take it.
    #[error("cannot be stored: {0}")]
    Storage(io::Error),
    /// A defect of this program.
    #[error("{0}")]
    Internal(String),
}

fn reasons(refusal: &Refusal) -> String {
    let reasons: Vec<_> = refusal.faults.iter().map(|fault| fault.reason.as_str()).collect();
    reasons.join("; ")
}

impl From<ControlError> for ChangeError {
    fn from(error: ControlError) -> Self {
        let said = error.to_string();
        match (error.daemon, error.failure) {
            (Daemon::Proxy, Failure::Refused(StatusCode::CONFLICT, refusal)) => Self::Conflict(refusal),
            (Daemon::Vrrp, Failure::Refused(StatusCode::CONFLICT, refusal)) => Self::VrrpConflict(refusal),
            (Daemon::Proxy, Failure::Refused(StatusCode::SERVICE_UNAVAILABLE, _)) => Self::ProxyDown(said),
            (Daemon::Vrrp, Failure::Refused(StatusCode::SERVICE_UNAVAILABLE, _)) => Self::VrrpDown(said),
            (_, Failure::Refused(_, refusal)) => Self::Invalid(refusal),
            (Daemon::Proxy, Failure::NotRunning(_)) => Self::ProxyDown(said),
            (Daemon::Vrrp, Failure::NotRunning(_)) => Self::VrrpDown(said),
            (Daemon::Proxy, Failure::Late | Failure::Broken(_)) => Self::ProxyLate(said),
            (Daemon::Vrrp, Failure::Late | Failure::Broken(_)) => Self::VrrpLate(said),
            (_, Failure::NotFound | Failure::Protocol(_)) => Self::Internal(said),
        }
    }
}
