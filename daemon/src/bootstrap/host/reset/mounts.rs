//! Mount points below a directory (proc_pid_mountinfo(5)). Pure.

use std::path::{Path, PathBuf};

use crate::bootstrap::host::gather::unescape;

/// The mount points strictly below it, in the order in which they have to go: later ones lie in or over earlier ones.
pub(super) fn below(mountinfo: &str, directory: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|point| PathBuf::from(unescape(point)));
    let mut below: Vec<PathBuf> = points.filter(|point| point != directory && point.starts_with(directory)).collect();
    below.reverse();
    // The list is in the order of mounting, but for what was moved: deeper ones always go first.
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p0_21_only_what_lies_below_goes_deepest_first_and_never_the_directory_itself() {
        let text = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 8:2 / /var/lib/kubelet rw - ext4 /dev/sdb1 rw
31 30 0:40 / /var/lib/kubelet/pods/u/volumes/a\\040b rw - tmpfs tmpfs rw
32 31 0:41 / /var/lib/kubelet/pods/u/volumes/a\\040b/c rw - tmpfs tmpfs rw
33 30 0:42 / /var/lib/kubelet/pods/u/volumes/d rw - tmpfs tmpfs rw
34 30 0:43 / /var/lib/kubelet/pods/u/volumes/d rw - tmpfs tmpfs rw
35 21 0:44 / /var/lib/kubelet2/x rw - tmpfs tmpfs rw
";
        let found = below(text, Path::new("/var/lib/kubelet"));
        let found: Vec<&str> = found.iter().filter_map(|path| path.to_str()).collect();
        let pods = "/var/lib/kubelet/pods/u/volumes";
        let expected = [format!("{pods}/a b/c"), format!("{pods}/d"), format!("{pods}/d"), format!("{pods}/a b")];
        assert_eq!(found, expected);
    }
}
