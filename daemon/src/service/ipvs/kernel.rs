//! The kernel as this back end needs it. The seam at which tests put a model of it.

use std::fmt;
use std::net::SocketAddr;

use weft_netlink::ipvs::{Batch, RealServer, RealServerInfo, Socket, Target, Timeouts, VirtualServer};
use weft_netlink::{Error, KernelError, RouteSocket};

/// The device on which kube-proxy's ipvs mode keeps its addresses.
const KUBE_PROXY_DEVICE: &str = "kube-ipvs0";

/// One change to ask of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Add a virtual server.
    AddVirtual(VirtualServer),
    /// Give a virtual server another scheduler or persistence.
    SetVirtual(VirtualServer),
    /// Delete a virtual server and its real servers.
    DeleteVirtual(Target),
    /// Add a real server.
    AddReal(Target, RealServer),
    /// Give a real server another weight.
    SetReal(Target, RealServer),
    /// Delete a real server.
    DeleteReal(Target, SocketAddr),
}

impl Op {
    /// Whose virtual server it concerns.
    pub(super) fn target(&self) -> Target {
        match self {
            Self::AddVirtual(server) | Self::SetVirtual(server) => server.target,
            Self::DeleteVirtual(target)
            | Self::AddReal(target, _)
            | Self::SetReal(target, _)
            | Self::DeleteReal(target, _) => *target,
        }
    }

    /// Whether it takes something away: what is not there then has been taken away.
    pub(super) fn is_removal(&self) -> bool {
        matches!(self, Self::DeleteVirtual(_) | Self::DeleteReal(..))
    }
}

/// What is asked of IPVS.
pub(super) trait Kernel: fmt::Debug {
    /// All virtual servers, whoever added them.
    fn virtual_servers(&mut self) -> Result<Vec<VirtualServer>, Error>;
    /// One virtual server.
    fn virtual_server(&mut self, target: &Target) -> Result<Option<VirtualServer>, Error>;
    /// The real servers of a virtual server; none if there is no such one.
    fn real_servers(&mut self, target: &Target) -> Result<Vec<RealServerInfo>, Error>;
    /// Carries out the changes in their order; the verdict on each. One refused does not stop those behind it.
    fn run(&mut self, ops: &[Op]) -> Result<Vec<Result<(), KernelError>>, Error>;
    /// Whether kube-proxy's ipvs mode is still on this machine, running or not.
    fn has_kube_proxy(&mut self) -> Result<bool, Error>;
    /// After what time connections are forgotten.
    fn timeouts(&mut self) -> Result<Timeouts, Error>;
    /// Sets those that are `Some`.
    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), Error>;
}

/// The kernel of this machine.
#[derive(Debug)]
pub(super) struct Machine {
    ipvs: Socket,
    route: RouteSocket,
}

impl Machine {
    /// Opens the ways to it in the network namespace of the calling thread, which loads the module if need be.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has no IPVS.
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { ipvs: Socket::open()?, route: RouteSocket::open()? })
    }
}

impl Kernel for Machine {
    fn virtual_servers(&mut self) -> Result<Vec<VirtualServer>, Error> {
        Ok(self.ipvs.virtual_servers()?.into_iter().map(|info| info.server).collect())
    }

    fn virtual_server(&mut self, target: &Target) -> Result<Option<VirtualServer>, Error> {
        Ok(self.ipvs.virtual_server(target)?.map(|info| info.server))
    }

    fn real_servers(&mut self, target: &Target) -> Result<Vec<RealServerInfo>, Error> {
        self.ipvs.real_servers(target)
    }

    fn run(&mut self, ops: &[Op]) -> Result<Vec<Result<(), KernelError>>, Error> {
        let mut batch = Batch::default();
        for op in ops {
            match op {
                Op::AddVirtual(server) => batch.add_virtual(server),
                Op::SetVirtual(server) => batch.set_virtual(server),
                Op::DeleteVirtual(target) => batch.delete_virtual(target),
                Op::AddReal(target, server) => batch.add_real(target, server),
                Op::SetReal(target, server) => batch.set_real(target, server),
                Op::DeleteReal(target, server) => batch.delete_real(target, *server),
            }
        }
        self.ipvs.run(batch)
    }

    fn has_kube_proxy(&mut self) -> Result<bool, Error> {
        Ok(self.route.link(KUBE_PROXY_DEVICE)?.is_some())
    }

    fn timeouts(&mut self) -> Result<Timeouts, Error> {
        self.ipvs.timeouts()
    }

    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), Error> {
        self.ipvs.set_timeouts(timeouts)
    }
}
