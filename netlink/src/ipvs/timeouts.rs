//! How long connections last that say nothing.

use std::time::Duration;

use crate::codec::{Attributes, Writer};

const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

/// After what time of silence IPVS forgets a connection, in whole seconds and for all virtual servers of the network
/// namespace.
///
/// Read, `None` means that this kernel does not balance the protocol; written, that the value stays. (So does it for zero.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// An established TCP connection; the kernel starts with 15 minutes.
    pub tcp: Option<Duration>,
    /// A TCP connection after a FIN; the kernel starts with 2 minutes.
    pub tcp_fin: Option<Duration>,
    /// UDP; the kernel starts with 5 minutes.
    pub udp: Option<Duration>,
}

impl Timeouts {
    pub(super) fn write(&self, w: &mut Writer) {
        for (kind, timeout) in [(TIMEOUT_TCP, self.tcp), (TIMEOUT_TCP_FIN, self.tcp_fin), (TIMEOUT_UDP, self.udp)] {
            if let Some(timeout) = timeout {
                w.u32(kind, u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX));
            }
        }
    }

    pub(super) fn read(attributes: Attributes<'_>) -> Self {
        let timeout = |kind: u16| attributes.u32(kind).map(|seconds| Duration::from_secs(seconds.into()));
        Self { tcp: timeout(TIMEOUT_TCP), tcp_fin: timeout(TIMEOUT_TCP_FIN), udp: timeout(TIMEOUT_UDP) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_to_change_is_not_written() {
        let some = Timeouts { udp: Some(Duration::from_secs(30)), ..Timeouts::default() };
        let mut writer = Writer::default();
        some.write(&mut writer);
        assert_eq!(writer.len(), 8);
        assert_eq!(Timeouts::read(Attributes(writer.bytes())), some);
    }
}
