//! Metrics of a daemon, in Prometheus' text format.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use weft_tests::http;
use weft_tests::netns::Netns;

/// What a daemon shows at this address.
///
/// # Errors
/// When nobody answers there.
pub(crate) fn scrape(netns: &Netns, server: SocketAddr) -> Result<String> {
    Ok(http::get(netns, server, "/metrics").context("no metrics")?.body)
}

/// The value of a metric, over all label sets that are not of IPv6; 0 if it is not there.
pub(crate) fn sample(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    let own = lines.filter(|rest| !rest.contains("\"IPv6\""));
    own.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_the_other_family_and_of_longer_names_do_not_count() {
        let text = "# HELP a_sum x\na_sum{ip_family=\"IPv4\"} 1.5\na_sum{ip_family=\"IPv6\"} 7\na_summary 9\na_sum 2\n";
        assert!((sample(text, "a_sum") - 3.5).abs() < 1e-9);
    }
}
