//! Addresses of a lab, all computed from its index, so that labs run side by side.

use std::net::Ipv4Addr;

/// Number of labs that may run at once on one machine.
pub const LABS_MAX: u8 = 64;
/// Number of hosts of one lab.
pub const HOSTS_MAX: u8 = 8;
/// Host number of the control node on both networks.
const CONTROL: u8 = 254;

/// Addresses of one lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Index of the lab, below [`LABS_MAX`].
    pub index: u8,
}

impl Addresses {
    /// Address of host N (from 1) on the management network.
    pub fn management(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 100 + self.index, 0, host)
    }

    /// Address of host N on the business network: its tunnel end point.
    pub fn business(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 100 + self.index, 1, host)
    }

    /// Address of the control node on the management network.
    pub fn control(self) -> Ipv4Addr {
        self.management(CONTROL)
    }

    /// Address of the control node on the business network: the edge.
    pub fn edge(self) -> Ipv4Addr {
        self.business(CONTROL)
    }

    /// Port of the Redfish BMC of host N, on the control address.
    pub fn redfish_port(self, host: u8) -> u16 {
        8000 + u16::from(host)
    }

    /// Port of the IPMI BMC of host N, on the control address.
    pub fn ipmi_port(self, host: u8) -> u16 {
        9000 + u16::from(host)
    }

    /// Port of the API server on the control address.
    pub fn api_port(self) -> u16 {
        6443
    }

    /// Port on the loopback of the machine under which a person reaches the API server.
    pub fn forward_port(self) -> u16 {
        16443 + u16::from(self.index)
    }
}
