//! One machine and one plugin: what the tests of the plugin stand on.
//!
//! ```no_run
//! # use weft_tests::cni::Host;
//! let host = Host::new();
//! let (conf, pod) = (host.conf("1.0.0"), host.pod());
//! assert_eq!(host.add(&conf, &pod).result().addresses(), ["10.88.0.2/24"]);
//! host.del(&conf, &pod).done();
//! host.assert_nothing_left();
//! ```

mod conf;
mod host;
pub mod injury;
mod outcome;
mod uplink;

pub use conf::Conf;
pub use host::{Call, Host, Pod, addresses};
pub use outcome::{Added, Outcome, Refusal};
pub use uplink::Uplink;

/// The versions that every case is run for, unless it says otherwise.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Runs a case once for each of [`VERSIONS`], on a machine of its own each time.
pub fn for_each_version(case: impl Fn(&Host, &Conf)) {
    for version in VERSIONS {
        let host = Host::new();
        let conf = host.conf(version);
        case(&host, &conf);
    }
}
