//! What a subscription shall not hear, decided in the kernel before it takes up room.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Where `nlmsg_pid` stands in a message: in a notification, the socket that made the change.
const PORT_OFFSET: u32 = 12;

/// Drops all datagrams whose first message tells of a change by one of these sockets. All messages of a datagram come from
/// one transaction, and so from one socket.
pub(super) fn ignore(socket: BorrowedFd<'_>, ports: &[u32]) -> io::Result<()> {
    let mut program = program(ports)?;
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of_val(&filter)).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the one way to hand a filter to a socket")]
    // SAFETY: the socket is open as long as it is borrowed; `filter` and the `program` that it points to live until the call
    // has returned, and the kernel copies both. The lengths are theirs.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            size,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// In classic BPF: load the port, compare it with each, drop or take the whole datagram.
fn program(ports: &[u32]) -> io::Result<Vec<libc::sock_filter>> {
    // linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K.
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code: u16, jt: u8, k: u32| libc::sock_filter { code, jt, jf: 0, k };
    let mut program = vec![step(LOAD, 0, PORT_OFFSET)];
    for (position, port) in ports.iter().enumerate() {
        // Over the comparisons left and the taking, to the dropping.
        let jump = u8::try_from(ports.len() - position).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{} ports, at most 255 are possible", ports.len()))
        })?;
        // The load turns the four bytes round as if they were in network order.
        program.push(step(JUMP_IF_EQUAL, jump, u32::from_be_bytes(port.to_ne_bytes())));
    }
    program.extend([step(RETURN, 0, u32::MAX), step(RETURN, 0, 0)]);
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparison_leads_to_the_end() {
        let program = program(&[1, 2, 3]).unwrap();
        assert_eq!(program.len(), 6);
        for (position, step) in program.iter().enumerate().filter(|(_, step)| step.code == 0x15) {
            assert_eq!(position + 1 + usize::from(step.jt), 5);
        }
        assert!(super::program(&[0; 256]).is_err());
    }
}
