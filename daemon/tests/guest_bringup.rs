//! What only a machine of its own can show of bring-up: swap that is really on, and a clock that is really wrong. Runs in guests
//! only: `tests/guest.sh -p weft --features guest --test guest_bringup`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "guest_bringup/api.rs"]
mod api;
#[path = "control_plane/authority.rs"]
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod authority;
#[path = "guest_bringup/clock.rs"]
mod clock;
#[path = "control_plane/impostor.rs"]
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod impostor;
#[path = "guest_bringup/machine.rs"]
mod machine;
#[path = "guest_bringup/swap.rs"]
mod swap;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use api::Api;
use clock::{RightTime, WrongClock};
use machine::{Machine, machine};
use swap::{FSTAB, Swap, areas};

/// Exit codes of `weft init --help` and `weft join --help`.
const PREFLIGHT: i32 = 2;
const DISCOVERY: i32 = 6;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn p0_1_swap_that_has_to_stay_is_told_and_what_is_turned_off_comes_back_with_reset() {
    let machine = machine!();
    let swap = Swap::on();
    let before = areas();
    let fstab = || fs::read_to_string(FSTAB).unwrap();
    let (fstab_before, nothing) = (fstab(), BTreeSet::new());
    assert_eq!(before.len(), 2);

    let forbidden = machine.init(&["--prepare-host=false"]);
    let told = ["[ERROR Swap]: swap is on: /dev/zram0, /run/a disk", "swapoff -a", "--swap=tolerate"];
    machine::refused(&forbidden, PREFLIGHT, &told);
    machine::nothing_written();
    assert_eq!(areas(), before);

    // The kernel does not give an area up whose pages it could not put elsewhere.
    let strict = swap.no_memory_for_it();
    let told = ["swapoff /dev/zram0: ", "Cannot allocate memory; is there memory enough", "--swap=tolerate"];
    machine::refused(&machine.init(&[]), PREFLIGHT, &told);
    assert_eq!((areas(), fstab()), (before.clone(), fstab_before.clone()));
    // As told: then it stays.
    let borne = machine::well(machine.init(&["--swap=tolerate"]));
    assert!(borne.stderr.contains("kubelet is told to bear it"), "{}", borne.stderr);
    assert_eq!((areas(), fstab()), (before.clone(), fstab_before.clone()));

    drop(strict);
    let off = machine::well(machine.init(&[]));
    assert!(off.stdout.contains("swap on /dev/zram0 is off") && off.stdout.contains("swap on /run/a disk is off"));
    assert_eq!(areas(), nothing);
    assert!(fstab().lines().filter(|line| line.contains(" swap ")).all(|line| line.starts_with('#')), "{}", fstab());
    machine::well(machine.init(&[]));

    let planned = machine::well(machine.weft(&["reset", "--dry-run"]));
    assert!(planned.stdout.contains("swapon /dev/zram0") && planned.stdout.contains("swapon /run/a disk"));
    assert_eq!(areas(), nothing);
    machine::well(machine.weft(&["reset", "--force"]));
    assert_eq!((areas(), fstab()), (before, fstab_before));
    machine::nothing_written();
}

#[test]
fn a_clock_without_a_battery_ends_init_before_certificates_are_made_by_it() {
    let machine = machine!();
    let right = RightTime::here();
    let wrong = WrongClock::set(right, SystemTime::UNIX_EPOCH + DAY);
    let told = ["[ERROR Clock]: it is 1970-01-02T00:0", "set the clock", "date -s"];
    machine::refused(&machine.init(&[]), PREFLIGHT, &told);
    machine::nothing_written();
    drop(wrong);
    machine::well(machine.init(&[]));
}

/// The API server has another clock than the machine, and a certificate that does not hold yet by a clock that is behind.
#[test]
fn j16_p0_13_join_tells_by_how_much_this_machines_clock_is_wrong_and_works_once_it_is_right() {
    let machine = machine!();
    let right = RightTime::here();
    let api = Api::start(right);
    let (token, file) = (api.by_token(), api.by_file());
    let ways = [&token, &file].map(|words| words.iter().map(String::as_str).collect::<Vec<_>>());
    for (time, words) in [
        (right.now() + Duration::from_secs(600), "clock skew 10m: this machine's clock is ahead of"),
        (right.now() - 2 * DAY, "clock skew 48h: this machine's clock is behind"),
    ] {
        let _wrong = WrongClock::set(right, time);
        for way in &ways {
            machine::refused(&machine.join(way), DISCOVERY, &[words, "set the clock (chrony, ntp)"]);
        }
        machine::nothing_written();
    }
    // Only who has found the cluster knows that a balancer of its API is to listen here.
    let taken = TcpListener::bind("127.0.0.1:7443").unwrap();
    let told = ["[ERROR Port-7443]", "weft-api-balancer needs it", "apiBalancerPort"];
    machine::refused(&machine.join(&ways[0]), PREFLIGHT, &told);
    drop(taken);
    for way in &ways {
        machine::well(machine.join(way));
    }
}
