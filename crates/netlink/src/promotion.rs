//! What becomes of the other addresses of a subnet when its first one goes.

use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, InetDevConf, LinkAttribute};

use super::{InterfaceIndex, Netlink, link::link};
use crate::NetError;

impl Netlink {
    /// Lets IPv4 addresses of an interface outlive the first one of their subnet (`promote_secondaries` of its
    /// `ip-sysctl`). Where the kernel was not told so, it deletes all of them together with that one.
    ///
    /// # Errors
    /// When the kernel refuses: the interface is gone.
    pub async fn promote_secondaries(&self, index: InterfaceIndex) -> Result<(), NetError> {
        let mut settings = InetDevConf::default();
        // What is zero here is not sent, and stays as it is.
        settings.promote_secondaries = 1;
        let mut message = link(index);
        let settings = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![settings]));
        self.set(message, || format!("have {index} keep the addresses beside a deleted one")).await
    }
}
