//! kubelet: whether it is there, and fits.

use crate::bootstrap::host::facts::HostFacts;
use crate::bootstrap::host::report::Finding;
use crate::bootstrap::host::wanted::Wanted;

/// How many minor versions a kubelet may be behind its control plane (Kubernetes' version skew policy).
const SKEW: u32 = 3;

pub(super) fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    // Whoever brings one also brings its unit.
    if wanted.brings_kubelet {
        return Vec::new();
    }
    version(facts, wanted).into_iter().chain(unit(facts)).collect()
}

fn version(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    const NAME: &str = "KubeletVersion";
    let text = match &facts.kubelet {
        None => {
            let fix = "install kubelet's package, or give its binary with --kubernetes-bin DIR";
            return Some(Finding::error(NAME, "there is no kubelet in PATH", fix));
        }
        Some(Err(reason)) => {
            return Some(Finding::error(NAME, format!("kubelet --version: {reason}"), "install another kubelet"));
        }
        Some(Ok(text)) => text,
    };
    let Some(kubelet) = minor(text) else {
        return Some(Finding::error(
            NAME,
            format!("kubelet says {text:?}, which is no version"),
            "install another kubelet",
        ));
    };
    let control_plane = minor(wanted.kubernetes_version.as_deref()?)?;
    let wanted = wanted.kubernetes_version.as_deref().unwrap_or_default();
    if kubelet > control_plane {
        let cause = format!("kubelet {text} is newer than the control plane, {wanted}");
        return Some(Finding::error(
            NAME,
            cause,
            format!("install kubelet {wanted}, or choose --kubernetes-version {text}"),
        ));
    }
    (kubelet + SKEW < control_plane).then(|| {
        let cause = format!("kubelet {text} is more than {SKEW} minor versions behind the control plane, {wanted}");
        Finding::error(NAME, cause, format!("install kubelet {wanted}"))
    })
}

/// Minor version of `v1.36.2`, `Kubernetes v1.36.2`.
fn minor(text: &str) -> Option<u32> {
    let version = text.rsplit(' ').next()?.trim_start_matches('v');
    let mut parts = version.split('.');
    (parts.next()? == "1").then(|| parts.next()?.parse().ok())?
}

fn unit(facts: &HostFacts) -> Option<Finding> {
    const NAME: &str = "Service-kubelet";
    match facts.kubelet_unit.as_deref() {
        Some("enabled" | "enabled-runtime" | "static" | "alias" | "generated" | "linked") => None,
        Some("masked" | "masked-runtime") => {
            Some(Finding::error(NAME, "kubelet's unit is masked", "systemctl unmask kubelet"))
        }
        // weft enables it once it is configured, and writes one where there is none: before, it would only crash.
        Some(_) => None,
        None if facts.systemd => Some(Finding::warning(NAME, "systemctl does not tell about kubelet's unit", "")),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, init, names, report};
    use super::*;

    #[test]
    fn kubelets_that_do_not_fit_are_refused() {
        for (kubelet, fits) in [
            (Some(Ok("v1.36.0")), true),
            (Some(Ok("Kubernetes v1.33.9")), true),
            (Some(Ok("v1.32.9")), false),
            (Some(Ok("v1.37.0")), false),
            (Some(Ok("nonsense")), false),
            (Some(Err("exec format error")), false),
            (None, false),
        ] {
            let kubelet = kubelet.map(|told| told.map(str::to_owned).map_err(str::to_owned));
            let machine = HostFacts { kubelet: kubelet.clone(), ..facts() };
            let found = report(&machine, &init());
            assert_eq!(found.is_passed(), fits, "{kubelet:?}");
            let brought = Wanted { brings_kubelet: true, ..init() };
            assert!(report(&machine, &brought).is_passed(), "one that is brought along is right");
        }
    }

    #[test]
    fn a_masked_unit_is_in_the_way_and_a_disabled_one_is_not() {
        let unit = |state: &str| HostFacts { kubelet_unit: Some(state.into()), ..facts() };
        assert_eq!(names(&report(&unit("masked"), &init())), ["Service-kubelet"]);
        for state in ["disabled", "not-found", "enabled"] {
            assert!(report(&unit(state), &init()).is_passed(), "{state}");
        }
    }
}
