//! Programs of this machine in a guest, with the shared libraries that they need.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::guest::initramfs::Initramfs;
use crate::tool::{self, Stdin};

/// Where the administrator's and everybody's programs are. Also the path in the guest.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Without these no guest comes up.
const NEEDED: [&str; 3] = ["ip", "nft", "modprobe"];
/// Witnesses and helpers that go along where they are installed.
const WELCOME: [&str; 27] = [
    "bash",
    "sh",
    "cat",
    "cp",
    "date",
    "ls",
    "losetup",
    "mkswap",
    "mount",
    "swapoff",
    "swapon",
    "dmesg",
    "lsmod",
    "bridge",
    "ss",
    "tc",
    "ping",
    "sysctl",
    "ipvsadm",
    "conntrack",
    "ipset",
    "wg",
    "etcd",
    "etcdctl",
    "strace",
    "iptables-save",
    "ip6tables-save",
];
/// What is too large for every guest goes along for the tests of one file, where it is installed.
const FOR_TESTS: [(&str, &[&str]); 1] = [("guest_bringup", &["containerd", "containerd-shim-runc-v2", "runc"])];
/// Data that programs look names up in.
const DATA: [&str; 4] = ["/etc/protocols", "/etc/services", "/etc/iproute2", "/usr/share/iproute2"];

impl<W: Write> Initramfs<W> {
    /// Adds what every guest has, and the programs named in `more` (names, or absolute paths).
    ///
    /// # Errors
    /// When a program is missing, cannot be read, or the archive cannot be written.
    pub fn add_programs(&mut self, more: &[String]) -> Result<()> {
        for name in NEEDED.into_iter().chain(more.iter().map(String::as_str)) {
            let path = find(name).with_context(|| format!("a guest needs `{name}`: run `tests/setup.sh test`"))?;
            self.add_program(&path)?;
        }
        for path in WELCOME.into_iter().filter_map(find) {
            self.add_program(&path)?;
        }
        for name in DATA {
            self.add_data(Path::new(name))?;
        }
        // Where the kernel looks for it when it wants a module (/proc/sys/kernel/modprobe).
        self.symlink("/sbin/modprobe", "/usr/sbin/modprobe")
    }

    /// Adds the program under test with its libraries, under the path that it has here, and what its tests need.
    ///
    /// # Errors
    /// As [`Initramfs::add_program`].
    pub fn add_test(&mut self, program: &Path) -> Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        // Cargo puts a hash behind the name.
        let name = name.rsplit_once('-').map_or(&*name, |(name, _)| name);
        let needed = FOR_TESTS.iter().filter(|(test, _)| *test == name).flat_map(|(_, programs)| *programs);
        for path in needed.filter_map(|program| find(program)) {
            self.add_program(&path)?;
        }
        self.add_program(program)
    }

    /// Adds a program under the path that it has here, with its libraries.
    ///
    /// # Errors
    /// When it or a library is missing or cannot be read, or the archive cannot be written.
    pub fn add_program(&mut self, path: &Path) -> Result<()> {
        self.copy(path, path)?;
        for library in libraries(path)? {
            self.copy(&library, &library)?;
        }
        Ok(())
    }

    fn add_data(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            for entry in std::fs::read_dir(path)? {
                self.add_data(&entry?.path())?;
            }
        } else if path.is_file() {
            self.copy(path, path)?;
        }
        Ok(())
    }
}

/// The program of that name, or at that absolute path.
fn find(name: &str) -> Option<PathBuf> {
    // Joining an absolute path gives that path.
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// The shared libraries of a program and its loader, as the loader finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = tool::run_with(tool::command("ldd").arg(program), Stdin::Bytes(b""))?;
    if output.exit != Some(0) {
        // ldd's own words for a static program or a script, on which it fails.
        if format!("{}{}", output.stdout, output.stderr).contains("not a dynamic executable") {
            return Ok(Vec::new());
        }
        bail!("ldd {}: {}", program.display(), output.stderr.trim());
    }
    parse_ldd(&output.stdout).with_context(|| format!("the libraries of {}", program.display()))
}

/// Lines of ldd: `name => /path (address)`, `/loader (address)`; `name (address)` is the kernel's own.
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        if path.starts_with("not found") {
            bail!("missing: {line}");
        }
        let path = path.split(' ').next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_program() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = parse_ldd(text).unwrap();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
        assert_eq!(parse_ldd("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_missing_library_is_named() {
        let refusal = parse_ldd("\tlibnl-3.so.200 => not found\n").unwrap_err().to_string();
        assert_eq!(refusal, "missing: libnl-3.so.200 => not found");
    }
}
