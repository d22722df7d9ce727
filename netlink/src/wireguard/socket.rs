//! The socket: configures devices and reads them.

use super::message::{DEVICE_IFINDEX, DEVICE_PEERS, GET_DEVICE, SET_DEVICE, header};
use super::{Change, DeviceInfo, DeviceSettings};
use crate::codec::{Message, Writer};
use crate::generic;
use crate::socket::{Answers, Family, Socket as Netlink};
use crate::{Error, KernelError, Result};

const FAMILY: generic::Family = generic::Family { name: "wireguard", feature: "WireGuard", module: "wireguard" };

/// `NLM_F_REQUEST`, `NLM_F_ACK`, linux/netlink.h.
const REQUEST: u16 = 0x1 | 0x4;

/// A blocking socket for WireGuard devices. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    netlink: Netlink,
    family: u16,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread. The kernel loads the module if it has it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel has no WireGuard, [`Error::Io`] if the process may not open sockets.
    pub fn open() -> Result<Self> {
        let mut netlink = Netlink::open(Family::Generic)?;
        let family = FAMILY.number(&mut netlink)?;
        Ok(Self { netlink, family })
    }

    /// Gives the device of this index its key, port and mark; its peers stay, but one whose key is the device's own.
    ///
    /// # Errors
    /// [`Error::Kernel`]: `ENODEV` without such a link, `EOPNOTSUPP` if it is no WireGuard device, `EADDRINUSE` if it is up and
    /// somebody else has the port.
    pub fn configure(&mut self, link: u32, settings: &DeviceSettings) -> Result<()> {
        let words = || format!("set WireGuard device {link}: UDP port {}", settings.listen_port);
        let verdicts = self.set(link, [(words, |w: &mut Writer| settings.write(w))])?;
        verdicts.into_iter().collect::<Result<(), KernelError>>().map_err(Error::from)
    }

    /// Makes the changes to the peers of a device in their order and returns the kernel's verdict on each; a refused one does
    /// not stop those behind it.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket itself fails; earlier changes may then have taken effect. `EMSGSIZE`: 128 peers travel
    /// together, and with a hundred networks each they are more than a datagram takes.
    pub fn run(&mut self, link: u32, changes: &[Change]) -> Result<Vec<Result<(), KernelError>>> {
        let each = changes.iter().map(|change| {
            let peers = move |w: &mut Writer| w.nest(DEVICE_PEERS, |w| w.nest(0, |w| change.write(w)));
            (move || format!("{change} on link {link}"), peers)
        });
        self.set(link, each)
    }

    /// The device of this index with all its peers; `None` if there is no such link.
    ///
    /// # Errors
    /// [`Error::Kernel`] (`EOPNOTSUPP`) if it is no WireGuard device, [`Error::Decode`] if an answer cannot be read,
    /// [`Error::DumpInterrupted`] if the device never stood still.
    pub fn device(&mut self, link: u32) -> Result<Option<DeviceInfo>> {
        let operation = format!("read WireGuard device {link}");
        let request = Message::new(self.family, header(GET_DEVICE), |w| w.u32(DEVICE_IFINDEX, link));
        let messages: Vec<Message> = match self.netlink.dump(&operation, &request, Some) {
            Err(error) if error.is_absent() => return Ok(None),
            messages => messages?,
        };
        let device = DeviceInfo::read(messages.iter().map(Message::attributes));
        device.map(Some).map_err(|reason| Error::decode(operation, reason))
    }

    /// One message each, so that each has a verdict of its own.
    fn set<N: Fn() -> String, B: FnOnce(&mut Writer)>(
        &mut self,
        link: u32,
        bodies: impl IntoIterator<Item = (N, B)>,
    ) -> Result<Vec<Result<(), KernelError>>> {
        let mut writer = Writer::default();
        let (mut starts, mut names) = (Vec::new(), Vec::new());
        for (name, body) in bodies {
            starts.push(writer.len());
            names.push(name);
            writer.message(self.family, REQUEST, header(SET_DEVICE), |w| {
                w.u32(DEVICE_IFINDEX, link);
                body(w);
            });
        }
        if let Some(fault) = writer.fault() {
            return Err(Error::io(
                format!("set WireGuard device {link}"),
                std::io::Error::new(std::io::ErrorKind::InvalidInput, fault.to_owned()),
            ));
        }
        self.netlink.run_messages(writer.bytes_mut(), &starts, Answers::Each, &|position, _| names[position]())
    }
}
