//! A cluster that comes up all at once, and from then on only lives.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use etcd_client::{Client, PutOptions, Txn, TxnOp};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use weft_tests::tool;

use crate::etcd::{Etcd, LIMIT};
use crate::world::{PREFIX, World, flannel, in_a_namespace, kernel, put, until};

const NODES: usize = 500;

/// What the contract allows: until all are reached, and the agent's memory in MiB.
const BOUND: (Duration, u64) = (Duration::from_secs(5), 60);

/// How often it is tried to keep to the time: other tests want the processor, too.
const TRIES: usize = 3;

/// Another node, as it registers itself.
struct Registered {
    subnet: String,
    address: String,
    key: String,
    value: String,
    lease: i64,
}

/// Node number `n`, and the etcd lease that its key hangs on.
async fn registered(mut client: Client, n: usize) -> Registered {
    let (high, low) = (n / 250, n % 250 + 1);
    let address = format!("198.18.{}.{low}", 1 + high);
    let value = flannel(&address, 0).replace("6f:8f:00", &format!("00:{high:02x}:{low:02x}"));
    let lease = client.lease_grant(86_400, None).await.unwrap().id();
    let net = format!("10.{}.{low}.0", 16 + high);
    Registered { subnet: format!("{net}/24"), address, key: format!("{PREFIX}/subnets/{net}-24"), value, lease }
}

/// Writes the keys, as a node does that registers itself or, the flannel way, renews its lease.
async fn write(client: &mut Client, nodes: &[Registered]) {
    let put = |node: &Registered| {
        let options = PutOptions::new().with_lease(node.lease);
        TxnOp::put(node.key.as_str(), node.value.as_str(), Some(options))
    };
    all(client, nodes, put).await;
}

async fn remove(client: &mut Client, nodes: &[Registered]) {
    all(client, nodes, |node| TxnOp::delete(node.key.as_str(), None)).await;
}

async fn all(client: &mut Client, nodes: &[Registered], what: impl Fn(&Registered) -> TxnOp) {
    // No more than some hundred fit into one transaction.
    for some in nodes.chunks(100) {
        client.txn(Txn::new().and_then(some.iter().map(&what).collect::<Vec<_>>())).await.unwrap();
    }
}

/// What iproute2 is told of by the kernel.
struct Told<'a> {
    programs: Vec<(Child, std::path::PathBuf)>,
    world: &'a World,
}

impl<'a> Told<'a> {
    /// Listens from now on.
    async fn listen(world: &'a World) -> Self {
        let mut told = Self { programs: Vec::new(), world };
        for (program, what) in
            [("ip", &["monitor", "link", "address", "route", "neigh"][..]), ("bridge", &["monitor", "fdb"])]
        {
            let file = world.path(&format!("{program}.monitor"));
            let mut command = tool::command(program);
            command.args(what).stdout(Stdio::from(File::create(&file).unwrap()));
            told.programs.push((command.spawn().unwrap(), file));
        }
        // What is somebody else's shows that they listen.
        let deadline = Instant::now() + LIMIT;
        while told.lines().iter().any(Vec::is_empty) {
            assert!(Instant::now() < deadline, "iproute2 is told of nothing");
            for verb in ["add", "del"] {
                tool::call("ip", &["route", verb, "blackhole", "203.0.113.1"]).unwrap();
                tool::call("bridge", &["fdb", verb, "02:00:00:00:00:01", "dev", "up1", "self"]).unwrap();
            }
            sleep(Duration::from_millis(20)).await;
        }
        told
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let read =
            |file: &std::path::PathBuf| std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
        self.programs.iter().map(|(_, file)| read(file)).collect()
    }

    /// All but what [`listen`](Self::listen) itself has done.
    fn news(&self) -> Vec<String> {
        let is_own = |line: &String| line.contains("203.0.113.1") || line.contains("02:00:00:00:00:01");
        self.lines().into_iter().flatten().filter(|line| !is_own(line)).collect()
    }

    /// Kernel objects that the agent has written so far, as it counts them itself.
    async fn written(&self) -> Vec<String> {
        let metrics = self.world.get("/metrics").await;
        metrics.lines().filter(|line| line.starts_with("weft_kernel_writes_total")).map(str::to_owned).collect()
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        for (program, _) in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

#[test]
fn d46_five_hundred_nodes_at_once_are_reached_and_what_they_renew_costs_nothing() {
    in_a_namespace(async || {
        let etcd = Etcd::start().await;
        let mut client = etcd.client().await;
        // Beside the other nodes' subnets there is room for this one's.
        let config = r#"{"Network": "10.0.0.0/11", "SubnetMax": "10.15.255.0", "Backend": {"Type": "vxlan"}}"#;
        put(&client, "config", config).await;
        let mut tasks = JoinSet::new();
        for n in 0..NODES {
            tasks.spawn(registered(client.clone(), n));
        }
        let nodes = tasks.join_all().await;
        let mut world = World::start(&etcd.options.endpoints[0], &["--proxy-mode", "none"]);
        world.ready().await;

        let peers: Vec<(&str, &str)> = nodes.iter().map(|node| (node.subnet.as_str(), node.address.as_str())).collect();
        for left in (0..TRIES).rev() {
            let began = Instant::now();
            write(&mut client, &nodes).await;
            let registered = began.elapsed();
            world.reaches(&peers).await;
            let reached = began.elapsed();
            println!("registered in {registered:?}, reached after {reached:?}, {} MiB at most", world.peak());
            if reached < BOUND.0 {
                break;
            }
            assert!(left > 0, "{reached:?}");
            remove(&mut client, &nodes).await;
            world.reaches(&[]).await;
        }

        // The kernel itself still has something to tell of: it tries its own new addresses.
        let tentative = || tool::call("ip", &["-6", "address", "show", "tentative"]).unwrap();
        until(&String::new(), tentative).await.unwrap();

        // All of them renew their leases every second.
        let (before, told) = (kernel(), Told::listen(&world).await);
        let written = told.written().await;
        let used = world.processor();
        let mut seconds = interval(Duration::from_secs(1));
        for _ in 0..3 {
            seconds.tick().await;
            write(&mut client, &nodes).await;
        }
        seconds.tick().await;
        println!("{:?} of processor time for {} renewals", world.processor() - used, 3 * NODES);
        assert_eq!(told.written().await, written);
        assert_eq!(told.news(), Vec::<String>::new());
        assert!(!written.is_empty() && kernel() == before);
        drop(told);

        // When nothing happens it rests, at the latest after what it had to do has had its consequences.
        let (span, deadline) = (Duration::from_secs(2), Instant::now() + LIMIT);
        loop {
            let used = world.processor();
            sleep(span).await;
            let used = world.processor() - used;
            if used <= span / 100 {
                break;
            }
            assert!(Instant::now() < deadline, "{used:?} of processor time in {span:?}");
        }
        assert!(world.peak() < BOUND.1, "{} MiB", world.peak());
        assert!(world.is_alive());
    });
}
