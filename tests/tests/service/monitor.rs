//! What is written to node 1's tables, as `nft` sees it.

use std::time::Duration;

use weft_tests::svc::Bench;
use weft_tests::{process, tool, wait};

/// Whether this machine has `nft`, the judge of the tables.
pub(crate) fn has_nft() -> bool {
    tool::call("nft", &["--version"]).is_ok()
}

/// What is written of Services while something is done, line by line. `name` is the log's.
pub(crate) fn written_while(bench: &Bench, name: &str, doing: impl FnOnce()) -> Vec<String> {
    let log = bench.lab().folder().join(format!("nft-monitor-{name}"));
    let mut monitor = tool::command("nft");
    let monitor = process::spawn(&bench.node.netns, monitor.arg("monitor"), &log).unwrap();
    let events = || std::fs::read_to_string(&log).unwrap();
    // The monitor is there once it tells of something, and has told all that was before once it tells of another.
    let heard = |mark: &str| {
        wait::until(Duration::from_secs(5), "the monitor to listen", || {
            let _ = bench.node.netns.tool("nft", &["add", "table", "inet", mark]);
            let _ = bench.node.netns.tool("nft", &["delete", "table", "inet", mark]);
            events().contains(mark)
        })
        .unwrap();
    };
    heard("before");
    doing();
    heard("after");
    monitor.kill();
    events().lines().filter(|line| line.contains("svc-")).map(str::to_owned).collect()
}
