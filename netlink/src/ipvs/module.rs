//! Loading schedulers before the kernel does.

use std::path::Path;

use super::Scheduler;
use crate::LinkProbe;

/// Has the kernel load a scheduler's module, if it is not there and we may (`CAP_SYS_MODULE`).
///
/// It would do so by itself when a virtual server is added, but with IPVS locked: and there it can stay for ever. `lblc` and
/// `lblcr` are introduced to every network namespace, which waits for any that is just being taken down, which waits for the
/// lock of IPVS to take down its virtual servers. From then on no namespace is made or taken down on the machine.
///
/// Whether it worked shows when a server is added.
pub(super) fn load(scheduler: &Scheduler) {
    let module = format!("ip_vs_{scheduler}");
    if Path::new("/sys/module").join(&module).exists() {
        return;
    }
    // The one question that has the kernel load a module of any name, and holds no lock: `dev_load` tries `netdev-` with
    // the name of a link that it does not have, and then the name alone. Links of more than 15 bytes cannot be, and no such
    // scheduler is known.
    let _ = LinkProbe::open().and_then(|links| links.flags(&module));
}
