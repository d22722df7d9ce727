//! Swap space that is really on, in compressed memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::stat::{Mode, SFlag, mknod};
use weft_tests::tool;

pub(crate) const FSTAB: &str = "/etc/fstab";

/// Another name of the second device: /proc/swaps writes a blank in another way.
const PLACE: &str = "/run/a disk";
const LINES: &str =
    "tmpfs /tmp tmpfs defaults 0 0\n/dev/zram0 none swap sw,pri=5 0 0\n/run/a\\040disk none swap sw 0 0\n";

/// The areas in use: device, size, priority, as the kernel tells them.
pub(crate) fn areas() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/swaps").unwrap();
    let areas = text.lines().skip(1).map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, _, size, _, priority] = words[..] else { panic!("{line}") };
        format!("{device} {size} {priority}")
    });
    areas.collect()
}

/// Two areas that are on, and in /etc/fstab. It leaves none.
pub(crate) struct Swap;

impl Swap {
    pub(crate) fn on() -> Self {
        tool::call("modprobe", &["zram", "num_devices=2"]).unwrap();
        let this = Self;
        for (device, size) in [("zram0", "1G"), ("zram1", "16M")] {
            fs::write(format!("/sys/block/{device}/disksize"), size).unwrap();
            tool::call("mkswap", &[&format!("/dev/{device}")]).unwrap();
        }
        let device = fs::metadata("/dev/zram1").unwrap().rdev();
        mknod(PLACE, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), device).unwrap();
        tool::call("swapon", &["-p", "5", "/dev/zram0"]).unwrap();
        tool::call("swapon", &[PLACE]).unwrap();
        fs::write(FSTAB, LINES).unwrap();
        this
    }

    /// Has the kernel promise no more memory than there is swap, of which a little is promised already.
    pub(crate) fn no_memory_for_it(&self) -> [Setting; 2] {
        [Setting::new("vm/overcommit_ratio", "0"), Setting::new("vm/overcommit_memory", "2")]
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        for device in ["/dev/zram0", PLACE] {
            // What is off already does not mind.
            let _ = tool::call("swapoff", &[device]);
        }
        let _ = tool::call("modprobe", &["-r", "zram"]);
        let _ = fs::remove_file(PLACE);
        let _ = fs::remove_file(FSTAB);
    }
}

/// A kernel setting that gets its old value back.
pub(crate) struct Setting {
    path: String,
    before: String,
}

impl Setting {
    fn new(key: &str, value: &str) -> Self {
        let path = format!("/proc/sys/{key}");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, value).unwrap();
        Self { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.before);
    }
}
