//! What ADD and DEL ask of the kernel, counted: figures that do not depend on how fast the machine is (cni.md, group K).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use anyhow::{Context, Result};
use weft_tests::cni::{Call, Host, Outcome};
use weft_tests::trace::{self, Trace};

/// System calls of one ADD into a bridge that is there, all counted: reading, opening, asking once whether it is done, and
/// whether host-local is to know of the address.
const ADD_CALLS: usize = 105;
/// The same of one DEL, with the child that waits for the kernel.
const DEL_CALLS: usize = 68;
/// Where the machine is busy, ADD and DEL ask more than once whether the kernel is done; one of so many does not.
const PODS: usize = 8;

/// What it may take on disk, in bytes. Memory is measured in bench/, without the test's own pages in it.
const SIZE: u64 = 2 << 20;

#[test]
fn t131_the_binary_is_small() {
    let size = Host::new().plugin().metadata().unwrap().len();
    assert!(size <= SIZE, "{size} bytes");
}

#[test]
fn t129_the_requests_of_an_add_and_a_del_are_few_and_known() {
    let host = Host::new();
    let conf = host.conf("1.0.0");
    // The bridge is made by the first one, and not counted.
    let _ = host.add(&conf, &host.pod()).result();
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    for _ in 0..PODS {
        let pod = host.pod();
        let (add, added) = traced(&host, host.call("ADD", &conf, &pod, "eth0")).unwrap();
        let _ = added.result();
        let (del, gone) = traced(&host, host.call("DEL", &conf, &pod, "eth0")).unwrap();
        gone.done();
        // Nothing is started; DEL has a child that waits for the kernel in the place of the runtime.
        assert_eq!([add.processes, add.threads, del.processes, del.threads], [1, 1, 1, 2]);
        adds.push(add);
        dels.push(del);
    }
    let (add, del) = (least(&adds).unwrap(), least(&dels).unwrap());
    assert_eq!(add.requests_in_words(), "GETADDR, NEWLINK x3, NEWNEIGH, NEWADDR, NEWROUTE, GETLINK x2");
    assert_eq!(del.requests_in_words(), "DELLINK");
    assert!(add.syscalls <= ADD_CALLS, "{} system calls for an ADD", add.syscalls);
    assert!(del.syscalls <= DEL_CALLS, "{} system calls for a DEL", del.syscalls);
}

fn least(traces: &[Trace]) -> Option<&Trace> {
    traces.iter().min_by_key(|trace| trace.syscalls)
}

fn traced(host: &Host, call: Call) -> Result<(Trace, Outcome)> {
    let folder = host.scratch.join("trace");
    let words = trace::wrapper(&folder)?;
    let words = words.iter().map(|word| word.to_str().context("not UTF-8")).collect::<Result<Vec<_>>>()?;
    let outcome = host.make(&call.under(&words));
    Ok((trace::read(&folder)?, outcome))
}
