//! IPVS on a kernel that has it: what we write is what `ipvsadm` reads, and the other way round.
//!
//! Each test has a network namespace of its own, that of its thread. `tests/guest.sh` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use weft_netlink::ipvs::{
    Batch, Forward, Persistence, RealServer, Scheduler, SchedulerFlags, Socket, Stats, Target, Timeouts, VirtualServer,
};
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{Address, Errno, IpVersion, KernelError, LinkChange, RouteSocket, Verb, protocol};

const RUN_ESTIMATION: &str = "net/ipv4/vs/run_estimation";

/// The thread of the test leaves the machine's network for a new one, and ends with it.
fn in_new_netns() -> Socket {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
    // Without any address the kernel has no table of local ones, and takes all others for broadcast.
    RouteSocket::open().unwrap().one(LinkChange::new(1).up().request()).unwrap();
    let socket = Socket::open().unwrap();
    // The estimators of thousands of servers would keep an emulated processor busy, and on Linux 6.1 in its interrupts.
    Sysctl::default().write(RUN_ESTIMATION, "0").unwrap();
    socket
}

#[expect(clippy::disallowed_methods, reason = "the distribution's ipvsadm is the judge of what we encode")]
fn ipvsadm(arguments: &str) -> String {
    let output = Command::new("ipvsadm").args(arguments.split(' ')).output().expect("ipvsadm is installed");
    assert!(output.status.success(), "ipvsadm {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `ipvsadm` would have to be told to make what is there, in the order of the text.
fn listed() -> Vec<String> {
    let list = || {
        let mut lines: Vec<String> = ipvsadm("-S -n").lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines.dedup();
        lines
    };
    let mut last = list();
    // Whoever changes servers meanwhile, in any namespace, makes the kernel repeat some and pass over others.
    loop {
        let lines = list();
        if lines == last {
            return lines;
        }
        last = lines;
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn target(protocol: u8, address: &str, port: u16) -> Target {
    Target::Address { address: ip(address), port, protocol }
}

fn simple(address: &str) -> VirtualServer {
    VirtualServer::new(target(protocol::TCP, address, 80), Scheduler::ROUND_ROBIN)
}

/// Carries out a batch of which nothing may be refused.
fn run(socket: &mut Socket, fill: impl FnOnce(&mut Batch)) {
    for verdict in verdicts(socket, fill) {
        verdict.unwrap_or_else(|error| panic!("{error}"));
    }
}

fn verdicts(socket: &mut Socket, fill: impl FnOnce(&mut Batch)) -> Vec<Result<(), KernelError>> {
    let mut batch = Batch::default();
    fill(&mut batch);
    socket.run(batch).unwrap()
}

fn virtual_servers(socket: &mut Socket) -> Vec<VirtualServer> {
    socket.virtual_servers().unwrap().into_iter().map(|info| info.server).collect()
}

fn real_servers(socket: &mut Socket, target: &Target) -> Vec<RealServer> {
    socket.real_servers(target).unwrap().into_iter().map(|info| info.server).collect()
}

#[test]
fn every_kind_of_server_is_listed_as_meant() {
    let mut socket = in_new_netns();
    let hour = Duration::from_secs(3600);
    let persistent = |prefix| Some(Persistence { timeout: hour, prefix });
    let hashing = SchedulerFlags::FALLBACK | SchedulerFlags::PORT;
    let servers = [
        simple("10.96.0.1"),
        VirtualServer {
            persistence: persistent(None),
            ..VirtualServer::new(target(protocol::UDP, "10.96.0.1", 53), Scheduler::WEIGHTED_LEAST_CONNECTIONS)
        },
        VirtualServer {
            persistence: persistent(Some(24)),
            scheduler_flags: hashing,
            ..VirtualServer::new(target(protocol::SCTP, "10.96.0.1", 132), Scheduler::SOURCE_HASHING)
        },
        VirtualServer {
            one_packet: true,
            ..VirtualServer::new(target(protocol::UDP, "10.96.0.2", 53), Scheduler::ROUND_ROBIN)
        },
        VirtualServer {
            persistence: persistent(None),
            ..VirtualServer::new(target(protocol::TCP, "10.96.0.3", 0), Scheduler::ROUND_ROBIN)
        },
        simple("fd00:96::1"),
        VirtualServer {
            persistence: persistent(None),
            scheduler_flags: SchedulerFlags::PORT,
            ..VirtualServer::new(target(protocol::UDP, "fd00:96::1", 53), Scheduler::MAGLEV_HASHING)
        },
        VirtualServer {
            persistence: persistent(Some(64)),
            ..VirtualServer::new(target(protocol::TCP, "fd00:96::2", 443), Scheduler::LEAST_CONNECTIONS)
        },
    ];
    let real = RealServer::new(ip("10.244.1.2"), 8080, 1);
    let real6 = RealServer::new(ip("fd00:244::2"), 8080, 100);
    let reals = [
        (0, real),
        (0, RealServer { port: 8081, weight: 0, upper_threshold: 10, lower_threshold: 5, ..real }),
        (0, RealServer { forward: Forward::Tunnel, address: ip("10.244.1.3"), port: 80, ..real }),
        (0, RealServer { forward: Forward::Direct, address: ip("10.244.1.4"), port: 80, weight: 65_536, ..real }),
        (5, real6),
        (5, RealServer { address: ip("fd00:244::3"), weight: 0, ..real6 }),
        // A tunnel may lead to another version of IP.
        (5, RealServer { forward: Forward::Tunnel, address: ip("10.244.1.3"), port: 80, ..real }),
    ];
    run(&mut socket, |batch| {
        servers.iter().for_each(|server| batch.add_virtual(server));
        reals.iter().for_each(|(server, real)| batch.add_real(&servers[*server].target, real));
    });

    let mut expected = servers.to_vec();
    expected.sort_by_key(|server| server.target);
    assert_eq!(virtual_servers(&mut socket), expected);
    for (number, server) in servers.iter().enumerate() {
        let expected: Vec<_> = reals.iter().filter(|(owner, _)| *owner == number).map(|(_, real)| *real).collect();
        let mut expected = expected;
        expected.sort_by_key(RealServer::socket_address);
        assert_eq!(real_servers(&mut socket, &server.target), expected, "{}", server.target);
        assert_eq!(socket.virtual_server(&server.target).unwrap().unwrap().server, *server);
    }
    assert_eq!(
        listed(),
        [
            "-A --sctp-service 10.96.0.1:132 -s sh -p 3600 -M 255.255.255.0 -b sh-fallback,sh-port",
            "-A -t 10.96.0.1:80 -s rr",
            "-A -t 10.96.0.3:0 -s rr -p 3600",
            "-A -t [fd00:96::1]:80 -s rr",
            "-A -t [fd00:96::2]:443 -s lc -p 3600 -M 64",
            "-A -u 10.96.0.1:53 -s wlc -p 3600",
            "-A -u 10.96.0.2:53 -s rr -o",
            "-A -u [fd00:96::1]:53 -s mh -p 3600 -b mh-port",
            "-a -t 10.96.0.1:80 -r 10.244.1.2:8080 -m -w 1",
            // Not even ipvsadm saves the thresholds.
            "-a -t 10.96.0.1:80 -r 10.244.1.2:8081 -m -w 0",
            "-a -t 10.96.0.1:80 -r 10.244.1.3:80 -i -w 1 --tun-type ipip",
            "-a -t 10.96.0.1:80 -r 10.244.1.4:80 -g -w 65536",
            "-a -t [fd00:96::1]:80 -r 10.244.1.3:80 -i -w 1 --tun-type ipip",
            "-a -t [fd00:96::1]:80 -r [fd00:244::2]:8080 -m -w 100",
            "-a -t [fd00:96::1]:80 -r [fd00:244::3]:8080 -m -w 0",
        ]
    );
}

#[test]
fn every_scheduler_can_be_had() {
    let mut socket = in_new_netns();
    for name in Scheduler::KNOWN {
        let server = VirtualServer::new(target(protocol::TCP, "10.96.0.1", 80), name.parse().unwrap());
        match verdicts(&mut socket, |batch| batch.add_virtual(&server)).remove(0) {
            Ok(()) => {}
            // Debian does not build this one.
            Err(error) if name == "twos" => {
                assert_eq!(error.errno, Errno::ENOENT);
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        }
        assert_eq!(virtual_servers(&mut socket), std::slice::from_ref(&server));
        assert_eq!(listed(), [format!("-A -t 10.96.0.1:80 -s {name}")]);
        run(&mut socket, |batch| batch.delete_virtual(&server.target));
    }
    assert_eq!(virtual_servers(&mut socket), []);
}

/// The kernel would load it with IPVS locked, and with bad luck for ever: a namespace of another test that goes is enough.
#[test]
fn a_scheduler_is_loaded_before_it_is_used() {
    let mut socket = in_new_netns();
    for name in ["lblc", "lblcr"] {
        // Nothing is there to be changed, so that the kernel itself does not come to the scheduler.
        let server = VirtualServer::new(target(protocol::TCP, "10.96.0.1", 80), name.parse().unwrap());
        let verdict = verdicts(&mut socket, |batch| batch.set_virtual(&server)).remove(0);
        assert_eq!(verdict.unwrap_err().errno, Errno::ESRCH);
        assert!(std::path::Path::new("/sys/module").join(format!("ip_vs_{name}")).exists(), "{name}");
    }
}

#[test]
fn servers_are_changed_and_deleted() {
    let mut socket = in_new_netns();
    for (address, real) in [("10.96.0.1", "10.244.1.2"), ("fd00:96::1", "fd00:244::2")] {
        let server = simple(address);
        let real = RealServer::new(ip(real), 8080, 1);
        run(&mut socket, |batch| {
            batch.add_virtual(&server);
            batch.add_real(&server.target, &real);
        });
        let server = VirtualServer {
            scheduler: Scheduler::MAGLEV_HASHING,
            scheduler_flags: SchedulerFlags::PORT,
            persistence: Some(Persistence { timeout: Duration::from_secs(60), prefix: None }),
            ..server
        };
        let drained = RealServer { weight: 0, upper_threshold: 7, ..real };
        run(&mut socket, |batch| {
            batch.set_virtual(&server);
            batch.set_real(&server.target, &drained);
        });
        assert_eq!(virtual_servers(&mut socket), std::slice::from_ref(&server));
        assert_eq!(real_servers(&mut socket, &server.target), [drained]);

        let server = simple(address);
        run(&mut socket, |batch| {
            batch.set_virtual(&server);
            batch.delete_real(&server.target, real.socket_address());
        });
        assert_eq!(virtual_servers(&mut socket), std::slice::from_ref(&server), "flags and persistence are gone");
        assert_eq!(real_servers(&mut socket, &server.target), []);

        run(&mut socket, |batch| {
            batch.add_real(&server.target, &real);
            batch.delete_virtual(&server.target);
        });
        assert_eq!(listed(), Vec::<String>::new());
    }
}

#[test]
fn each_refusal_is_told_apart_and_stops_nothing() {
    let mut socket = in_new_netns();
    let server = simple("10.96.0.1");
    let absent = simple("10.96.0.2");
    let real = RealServer::new(ip("10.244.1.2"), 8080, 1);
    let other = RealServer::new(ip("10.244.1.3"), 8080, 1);
    let unknown = VirtualServer { scheduler: "unheard-of".parse().unwrap(), ..absent.clone() };
    let bad_prefix = VirtualServer {
        persistence: Some(Persistence { timeout: Duration::from_secs(1), prefix: Some(0) }),
        ..simple("fd00:96::2")
    };
    let verdicts = verdicts(&mut socket, |batch| {
        batch.add_virtual(&server);
        batch.add_virtual(&server);
        batch.add_virtual(&unknown);
        batch.add_virtual(&bad_prefix);
        batch.set_virtual(&absent);
        batch.delete_virtual(&absent.target);
        batch.add_real(&absent.target, &real);
        batch.add_real(&server.target, &real);
        batch.add_real(&server.target, &real);
        batch.set_real(&server.target, &other);
        batch.delete_real(&server.target, other.socket_address());
        batch.add_real(&server.target, &RealServer { address: ip("224.0.0.1"), ..other });
        batch.add_real(&server.target, &RealServer { upper_threshold: 1, lower_threshold: 2, ..other });
        batch.add_real(&server.target, &other);
    });
    let errnos: Vec<Option<Errno>> =
        verdicts.iter().map(|verdict| verdict.as_ref().err().map(|error| error.errno)).collect();
    assert_eq!(
        errnos,
        [
            None,
            Some(Errno::EEXIST),
            Some(Errno::ENOENT),
            Some(Errno::EINVAL),
            Some(Errno::ESRCH),
            Some(Errno::ESRCH),
            Some(Errno::ESRCH),
            None,
            Some(Errno::EEXIST),
            Some(Errno::ENOENT),
            Some(Errno::ENOENT),
            Some(Errno::EINVAL),
            Some(Errno::ERANGE),
            None,
        ]
    );
    let said: Vec<String> =
        verdicts.iter().filter_map(|verdict| verdict.as_ref().err()).map(ToString::to_string).collect();
    assert!(said[0].starts_with("add virtual server TCP 10.96.0.1:80: "), "{}", said[0]);
    assert!(said[8].starts_with("delete real server 10.244.1.3:8080 of TCP 10.96.0.1:80: "), "{}", said[8]);
    let refused = |number: usize| verdicts[number].as_ref().unwrap_err();
    assert!(refused(1).is_present() && refused(8).is_present() && !refused(4).is_present());
    assert!(refused(5).is_absent() && refused(10).is_absent() && !refused(8).is_absent());
    assert_eq!(real_servers(&mut socket, &server.target), [real, other]);
    // The kernel does not tell a server without real servers from one that is not there; the look-up does.
    assert_eq!(real_servers(&mut socket, &absent.target), []);
    assert_eq!(socket.virtual_server(&absent.target).unwrap(), None);
}

#[test]
fn what_others_added_is_read() {
    let mut socket = in_new_netns();
    ipvsadm("-A -f 7 -s rr");
    ipvsadm("-a -f 7 -r 10.244.1.2 -g -w 3");
    ipvsadm("-A -f 8 -6 -s wrr -p 100");
    ipvsadm("-a -f 8 -6 -r fd00:244::2 -i -w 3 --tun-type gue --tun-port 6080");
    ipvsadm("-A -u 10.96.0.1:5060 -s rr -p 60 --pe sip -o");
    let four = Target::Mark { mark: 7, version: IpVersion::V4 };
    let six = Target::Mark { mark: 8, version: IpVersion::V6 };
    let sip = target(protocol::UDP, "10.96.0.1", 5060);
    let persistence = |seconds| Some(Persistence { timeout: Duration::from_secs(seconds), prefix: None });
    assert_eq!(
        virtual_servers(&mut socket),
        [
            VirtualServer {
                persistence: persistence(60),
                one_packet: true,
                ..VirtualServer::new(sip, Scheduler::ROUND_ROBIN)
            },
            VirtualServer::new(four, Scheduler::ROUND_ROBIN),
            VirtualServer { persistence: persistence(100), ..VirtualServer::new(six, Scheduler::WEIGHTED_ROUND_ROBIN) },
        ]
    );
    let real = RealServer { forward: Forward::Direct, ..RealServer::new(ip("10.244.1.2"), 0, 3) };
    assert_eq!(real_servers(&mut socket, &four), [real]);
    let real = RealServer { forward: Forward::Tunnel, ..RealServer::new(ip("fd00:244::2"), 0, 3) };
    assert_eq!(real_servers(&mut socket, &six), [real]);

    // What others have, we can make too.
    run(&mut socket, |batch| [four, six, sip].iter().for_each(|target| batch.delete_virtual(target)));
    let mine = VirtualServer { persistence: persistence(100), ..VirtualServer::new(six, Scheduler::ROUND_ROBIN) };
    run(&mut socket, |batch| batch.add_virtual(&mine));
    assert_eq!(listed(), ["-A -f 8 -6 -s rr -p 100"]);
}

#[test]
fn timeouts_are_set_one_by_one() {
    let mut socket = in_new_netns();
    let seconds = |tcp, tcp_fin, udp| {
        let time = |seconds| Some(Duration::from_secs(seconds));
        Timeouts { tcp: time(tcp), tcp_fin: time(tcp_fin), udp: time(udp) }
    };
    assert_eq!(socket.timeouts().unwrap(), seconds(900, 120, 300));
    socket.set_timeouts(&Timeouts { udp: Some(Duration::from_secs(30)), ..Timeouts::default() }).unwrap();
    assert_eq!(socket.timeouts().unwrap(), seconds(900, 120, 30));
    socket.set_timeouts(&seconds(1000, 60, 0)).unwrap();
    assert_eq!(socket.timeouts().unwrap(), seconds(1000, 60, 30));
    assert_eq!(ipvsadm("-L --timeout").trim(), "Timeout (tcp tcpfin udp): 1000 60 30");
    let error = socket.set_timeouts(&seconds(u64::MAX, 1, 1)).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINVAL), "{error}");
}

#[test]
fn ipvs_says_what_it_is() {
    let info = in_new_netns().info().unwrap();
    assert_eq!(info.version, (1, 2, 1));
    assert!(info.connection_buckets.is_power_of_two(), "{info:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "polls the counters, with a limit")]
fn connections_and_packets_are_counted() {
    let mut socket = in_new_netns();
    let sysctl = Sysctl::default();
    sysctl.write(RUN_ESTIMATION, "1").unwrap();
    let route = |network: &str| Address::new(1, network.parse().unwrap()).request(Verb::Create);
    RouteSocket::open().unwrap().all(vec![route("10.96.0.1/32"), route("10.244.1.2/32")]).unwrap();
    let server = VirtualServer::new(target(protocol::UDP, "10.96.0.1", 53), Scheduler::ROUND_ROBIN);
    let backend = UdpSocket::bind("10.244.1.2:5353").unwrap();
    backend.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    run(&mut socket, |batch| {
        batch.add_virtual(&server);
        batch.add_real(&server.target, &RealServer::new(ip("10.244.1.2"), 5353, 1));
    });
    let ask = || {
        let client = UdpSocket::bind("10.96.0.1:0").unwrap();
        client.send_to(b"hello", "10.96.0.1:53").unwrap();
        backend.recv(&mut [0; 16]).unwrap();
    };
    let counted = |socket: &mut Socket| {
        let real = socket.real_servers(&server.target).unwrap()[0];
        let all = socket.virtual_server(&server.target).unwrap().unwrap().stats;
        (real.inactive, real.stats, all)
    };
    ask();
    assert_eq!(counted(&mut socket).0, 1);
    let expected = |count| Stats { connections: count, packets_in: count, bytes_in: 33 * count, ..Stats::default() };
    // The estimator adds up the counters of all processors every two seconds.
    let wait_for = |socket: &mut Socket, expected: Stats| {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let (_, real, all) = counted(socket);
            if (real, all) == (expected, expected) {
                return;
            }
            assert!(Instant::now() < end, "{real:?} and {all:?} instead of {expected:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for(&mut socket, expected(1));

    // Connections are counted at once, estimator or not, so that a server can be drained; the statistics wait for it.
    sysctl.write(RUN_ESTIMATION, "0").unwrap();
    ask();
    assert_eq!(counted(&mut socket).0, 2);
    sysctl.write(RUN_ESTIMATION, "1").unwrap();
    wait_for(&mut socket, expected(2));
}

#[test]
fn thousands_of_servers_go_at_once_and_are_all_read() {
    const VIRTUAL: u32 = 2000;
    const REAL: u32 = 4;
    let mut socket = in_new_netns();
    let targets: Vec<Target> = (0..VIRTUAL)
        .map(|number| match number % 2 {
            0 => target(protocol::TCP, &Ipv4Addr::from(0x0a60_0000 + number).to_string(), 80),
            _ => target(protocol::UDP, &format!("fd00:96::{number:x}"), 53),
        })
        .collect();
    let real = |target: &Target, number: u32| match target.version() {
        IpVersion::V4 => RealServer::new(Ipv4Addr::from(0x0af4_0000 + number).into(), 8080, 1),
        IpVersion::V6 => RealServer::new(ip(&format!("fd00:244::{number:x}")), 8080, 1),
    };
    let reals = |target: &Target| (0..REAL).map(|number| real(target, number)).collect::<Vec<_>>();
    let mut batch = Batch::default();
    for target in &targets {
        batch.add_virtual(&VirtualServer::new(*target, Scheduler::ROUND_ROBIN));
        reals(target).iter().for_each(|server| batch.add_real(target, server));
    }
    let count = batch.len();
    let start = Instant::now();
    assert!(socket.run(batch).unwrap().iter().all(Result::is_ok));
    let took = start.elapsed();
    println!("{count} additions in {took:?}: {:.0} a second", count as f64 / took.as_secs_f64());

    let start = Instant::now();
    // The other tests add and delete servers meanwhile, of whose namespaces we shall not notice anything.
    let found: Vec<Target> = virtual_servers(&mut socket).into_iter().map(|server| server.target).collect();
    assert_eq!(found, targets.iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
    for target in &targets {
        assert_eq!(real_servers(&mut socket, target), reals(target));
    }
    println!("{count} servers read in {:?}", start.elapsed());

    // Another time each is refused, and every refusal arrives.
    let again = verdicts(&mut socket, |batch| {
        targets.iter().for_each(|target| batch.add_virtual(&VirtualServer::new(*target, Scheduler::ROUND_ROBIN)));
    });
    assert!(again.iter().all(|verdict| verdict.as_ref().is_err_and(KernelError::is_present)));

    run(&mut socket, |batch| targets.iter().for_each(|target| batch.delete_virtual(target)));
    assert_eq!(virtual_servers(&mut socket), []);
}
