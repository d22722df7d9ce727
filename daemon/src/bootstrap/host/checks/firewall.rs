//! firewalld and SELinux.

use super::network::open_ports;
use crate::bootstrap::host::facts::HostFacts;
use crate::bootstrap::host::report::{Finding, Severity};
use crate::bootstrap::host::wanted::Wanted;

pub(super) fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    let closed: Vec<String> =
        open_ports(wanted).into_iter().filter(|port| !facts.firewalld_open.contains(port)).collect();
    if facts.firewalld && !closed.is_empty() {
        let flags: Vec<String> = closed.iter().map(|port| format!("--add-port={port}")).collect();
        let severity = if wanted.fix { Severity::Mended } else { Severity::Warning };
        let cause = format!("firewalld is active, and other nodes have to reach {}", closed.join(", "));
        let fix = format!("firewall-cmd --permanent {} && firewall-cmd --reload; or --fix", flags.join(" "));
        findings.push(Finding { severity, ..Finding::warning("Firewalld", cause, fix) }.fixable());
    }
    if facts.selinux == Some(true) {
        findings.push(Finding::warning(
            "SELinux",
            "SELinux enforces, and containers may be refused what they mount",
            "install container-selinux; what is refused is in ausearch -m avc -ts recent",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, init, report};
    use super::*;

    #[test]
    fn ports_that_firewalld_closes_are_listed_or_opened() {
        let mut machine = HostFacts { firewalld: true, ..facts() };
        let found = report(&machine, &init());
        let finding = found.get("Firewalld").unwrap();
        assert!(finding.cause.contains("10250/tcp, 8472/udp, 6443/tcp, 2379-2380/tcp"), "{finding:?}");
        assert!(found.is_passed() && finding.fixable);
        let fixing = Wanted { fix: true, ..init() };
        assert_eq!(report(&machine, &fixing).get("Firewalld").unwrap().severity, Severity::Mended);
        machine.firewalld_open = open_ports(&init()).into_iter().collect();
        assert!(report(&machine, &init()).findings.is_empty());
    }

    #[test]
    fn selinux_is_told() {
        let machine = HostFacts { selinux: Some(true), ..facts() };
        assert!(report(&machine, &init()).get("SELinux").is_some());
    }
}
