//! A kernel that lacks parts of nf_tables, and an agent that says which. In a guest of its own, whose modules are taken away
//! while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use weft_tests::lab::{OwnedLab, Spec};
use weft_tests::{tool, wait};

/// Modules that the kernel does not find while this lives.
struct Hidden(Vec<PathBuf>);

impl Hidden {
    fn new(names: &[&str]) -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let folder = PathBuf::from("/lib/modules").join(release.trim()).join("kernel/net/netfilter");
        let files = names.iter().map(|name| folder.join(format!("{name}.ko")));
        let hidden = Self(files.collect());
        for (name, file) in names.iter().zip(&hidden.0) {
            fs::rename(file, file.with_extension("away")).unwrap();
            // No other program of this guest has had a use for it.
            assert!(!fs::read_to_string("/proc/modules").unwrap().contains(&format!("{name} ")), "{name} is in use");
        }
        hidden
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        for file in &self.0 {
            fs::rename(file.with_extension("away"), file).unwrap();
        }
    }
}

#[test]
fn t101_what_the_kernel_lacks_is_named_and_used_once_it_is_there() {
    let hidden = Hidden::new(&["nft_ct", "nft_fib_inet", "nft_numgen", "nft_nat"]);
    let mut lab = OwnedLab::bare(Spec::test(1).services("nftables"));
    lab.new_node().unwrap();
    lab.start_agent("node1").unwrap();
    let parts = "CONFIG_NFT_CT (module nft_ct), CONFIG_NFT_FIB_INET (module nft_fib_inet), \
                 CONFIG_NFT_NUMGEN (module nft_numgen), CONFIG_NFT_NAT (module nft_nat);";
    let named = || lab.readyz("node1").is_ok_and(|answer| answer.status == 503 && answer.body.contains(parts));
    wait::until(wait::patience(Duration::from_secs(30)), "/readyz to name what the kernel lacks", named).unwrap();
    assert!(lab.log("node1").unwrap().contains(parts), "{}", lab.log("node1").unwrap());
    assert!(!tool::call("nft", &["list", "ruleset"]).unwrap().contains("weft-preflight"));
    drop(hidden);
    lab.await_ready("node1").unwrap();
    let rules = lab.node("node1").unwrap().netns.tool("nft", &["list", "table", "inet", "weft"]).unwrap();
    assert!(rules.contains("fib saddr type local"), "{rules}");
}
