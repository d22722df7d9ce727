//! The kernels that guests run on: a distribution's packages, unpacked by `tests/guest-kernels.sh`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::guest::initramfs::Initramfs;

/// The parts of the module tree that a guest may load from; the rest is drivers for hardware that it does not have.
/// `zram`, with its `zsmalloc` in `mm`, is a disk in memory.
const PARTS: [&str; 8] = [
    "kernel/arch",
    "kernel/crypto",
    "kernel/drivers/block/zram",
    "kernel/drivers/net",
    "kernel/fs/overlayfs",
    "kernel/lib",
    "kernel/mm",
    "kernel/net",
];
/// Of those, what is large and of no use in a guest: everything is unpacked into its memory at each boot.
const NOT_THESE: [&str; 5] =
    ["kernel/arch/x86/kvm", "kernel/drivers/net/ethernet", "kernel/net/ceph", "kernel/net/sunrpc", "kernel/net/tipc"];

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What `uname -r` says on it.
    pub release: String,
    /// The image that boots.
    pub image: PathBuf,
    /// Its modules, with depmod's indexes.
    modules: PathBuf,
}

/// Where the kernels are: `WEFT_GUEST_DIR`, else `guest` in cargo's target folder. One folder a series in it.
#[must_use]
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("WEFT_GUEST_DIR") {
        return PathBuf::from(folder);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    target.join("guest")
}

/// The series of a release: `6.1` of `6.1.0-56-cloud-amd64`.
#[must_use]
pub fn series(release: &str) -> &str {
    release.match_indices('.').nth(1).map_or(release, |(end, _)| &release[..end])
}

impl Kernel {
    /// The kernel of a series such as `6.1`.
    ///
    /// # Errors
    /// When it has not been unpacked.
    pub fn find(series: &str) -> Result<Self> {
        let folder = folder().join(series);
        Self::at(&folder).with_context(|| {
            format!("no kernel {series} for guests in {}: run `tests/guest-kernels.sh {series}`", folder.display())
        })
    }

    fn at(folder: &Path) -> Result<Self> {
        let boot = folder.join("boot");
        for entry in fs::read_dir(&boot)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(release) = name.strip_prefix("vmlinuz-") else { continue };
            let modules = folder.join("lib/modules").join(release);
            fs::metadata(modules.join("modules.dep.bin")).context("no indexes of the modules")?;
            return Ok(Self { release: release.to_owned(), image: boot.join(&name), modules });
        }
        anyhow::bail!("no vmlinuz in {}", boot.display())
    }

    /// Puts the modules into a guest.
    ///
    /// # Errors
    /// When a module cannot be read, or the archive not be written.
    pub fn add_modules<W: Write>(&self, archive: &mut Initramfs<W>) -> Result<()> {
        for entry in fs::read_dir(&self.modules)? {
            let path = entry?.path();
            if path.is_file() {
                self.add(archive, &path)?;
            }
        }
        for part in PARTS {
            self.add_tree(archive, &self.modules.join(part))?;
        }
        Ok(())
    }

    fn add_tree<W: Write>(&self, archive: &mut Initramfs<W>, folder: &Path) -> Result<()> {
        if NOT_THESE.iter().any(|part| folder.ends_with(part)) {
            return Ok(());
        }
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                self.add_tree(archive, &path)?;
            } else {
                self.add(archive, &path)?;
            }
        }
        Ok(())
    }

    fn add<W: Write>(&self, archive: &mut Initramfs<W>, path: &Path) -> Result<()> {
        let inside = path.strip_prefix(&self.modules)?;
        archive.copy(Path::new("/lib/modules").join(&self.release).join(inside), path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_series_of_a_release() {
        assert_eq!(series("6.1.0-56-cloud-amd64"), "6.1");
        assert_eq!(series("6.12.117+deb12-cloud-amd64"), "6.12");
        assert_eq!(series("7.0"), "7.0");
    }

    #[test]
    fn a_kernel_without_indexes_is_no_kernel() {
        let folder = Scratch::new();
        fs::create_dir_all(folder.join("boot")).unwrap();
        assert!(Kernel::at(folder.path()).unwrap_err().to_string().contains("no vmlinuz"));
        fs::write(folder.join("boot/vmlinuz-6.1.0"), "").unwrap();
        assert_eq!(Kernel::at(folder.path()).unwrap_err().to_string(), "no indexes of the modules");
        fs::create_dir_all(folder.join("lib/modules/6.1.0")).unwrap();
        fs::write(folder.join("lib/modules/6.1.0/modules.dep.bin"), "").unwrap();
        assert_eq!(Kernel::at(folder.path()).unwrap().release, "6.1.0");
    }
}
