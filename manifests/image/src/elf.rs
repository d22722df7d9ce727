//! Whether a binary can run in an image that holds nothing else: of the right machine, and linked statically.
//!
//! Offsets and numbers are those of elf(5).

use std::fmt;

use anyhow::{Result, bail, ensure};

/// `PT_INTERP`: the program header that names a loader.
const PT_INTERP: usize = 3;
/// Size of a program header of a 64-bit file, in bytes.
const HEADER_LEN: usize = 56;

/// A processor architecture that weft is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// All of them, in the order in which an index lists them.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Its name in an image (Go's `GOARCH`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The target that the binaries are built for.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// The architecture that a binary is for, however it is linked.
///
/// # Errors
/// When it is none, or for another kind of machine.
pub fn machine(binary: &[u8]) -> Result<Architecture> {
    ensure!(binary.starts_with(b"\x7fELF"), "not an ELF file");
    ensure!(binary.get(4..6) == Some(&[2, 1]), "not a 64-bit little-endian ELF file");
    match number(binary, 18, 2)? {
        62 => Ok(Architecture::Amd64),
        183 => Ok(Architecture::Arm64),
        other => bail!("built for machine {other} of elf(5); expected 62 (x86-64) or 183 (arm64)"),
    }
}

/// The architecture that a static binary is for.
///
/// # Errors
/// Says why the binary cannot run in the image.
pub fn architecture(binary: &[u8]) -> Result<Architecture> {
    let architecture = machine(binary)?;
    let (table, size, count) = (number(binary, 32, 8)?, number(binary, 54, 2)?, number(binary, 56, 2)?);
    ensure!(size == HEADER_LEN, "program headers have {size} bytes; expected {HEADER_LEN}");
    for index in 0..count {
        let Some(at) = table.checked_add(index * HEADER_LEN) else { bail!("cut off") };
        ensure!(number(binary, at, 4)? != PT_INTERP, "linked dynamically: it needs a loader, and the image has none");
    }
    Ok(architecture)
}

/// A little-endian number of up to eight bytes.
fn number(binary: &[u8], at: usize, len: usize) -> Result<usize> {
    let Some(bytes) = at.checked_add(len).and_then(|end| binary.get(at..end)) else { bail!("cut off") };
    let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    Ok(usize::try_from(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(machine: u8, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + HEADER_LEN];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (machine, 64, 56, 1, kind);
        bytes
    }

    #[test]
    fn static_binaries_of_both_machines() {
        assert_eq!(architecture(&binary(62, 1)).unwrap(), Architecture::Amd64);
        assert_eq!(architecture(&binary(183, 1)).unwrap(), Architecture::Arm64);
    }

    #[test]
    fn what_would_not_start_is_refused_with_the_reason() {
        let mut far = binary(62, 1);
        far[32..40].fill(0xff);
        for (bytes, reason) in [
            (binary(62, 3), "loader"),
            (binary(40, 1), "machine 40"),
            (binary(62, 1)[..80].get(..50).unwrap().to_vec(), "cut off"),
            (far, "cut off"),
            (b"#!/bin/sh\n".to_vec(), "not an ELF"),
            (Vec::new(), "not an ELF"),
        ] {
            let error = architecture(&bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
