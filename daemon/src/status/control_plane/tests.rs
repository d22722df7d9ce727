//! What is made of answers.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::bootstrap::api::EtcdMember;
use crate::bootstrap::pki::expiry;
use crate::bootstrap::pki::{Options, ensure_all};
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::static_pods::golden::{cluster, node};
use crate::status::control_plane::text;

fn asked(component: &str, answers: &[(&str, Result<(), &str>)]) -> Asked {
    let answer = |(path, answer): &(&str, Result<(), &str>)| ((*path).to_owned(), (*answer).map_err(str::to_owned));
    Asked {
        component: component.into(),
        at: "192.0.2.10:1".into(),
        version: Some("v1.36.2".into()),
        answers: answers.iter().map(answer).collect(),
    }
}

fn seen(name: &str, kubelet: &str) -> NodeSeen {
    NodeSeen { name: name.into(), ready: true, control_plane: true, kubelet: kubelet.into(), cri_socket: None }
}

fn health(id: u64, problem: Option<&str>) -> EtcdHealth {
    let member = EtcdMember {
        id,
        name: format!("n{id}"),
        peers: vec![format!("https://192.0.2.{id}:2380")],
        clients: vec![format!("https://192.0.2.{id}:2379")],
        is_learner: false,
    };
    let version = problem.is_none().then(|| "3.6.8".to_owned());
    EtcdHealth { member, is_leader: id == 10, version, problem: problem.map(str::to_owned) }
}

fn well() -> Found {
    let pod = |node: &str, ready| PodSeen {
        component: "kube-scheduler".into(),
        node: node.into(),
        image: "registry.k8s.io/kube-scheduler:v1.36.2".into(),
        ready,
        config_hash: None,
    };
    Found {
        node: Some("n1".into()),
        asked: vec![
            asked("kube-apiserver", &[("/livez", Ok(())), ("/readyz", Ok(()))]),
            asked("etcd", &[("/livez", Ok(()))]),
        ],
        told: Ok(Told {
            version: Ok("v1.36.2".into()),
            nodes: Ok(vec![seen("n1", "v1.36.2"), seen("n2", "v1.33.0")]),
            pods: Ok(vec![pod("n1", false), pod("n2", true)]),
        }),
        etcd: Some(Ok(vec![health(10, None)])),
        certificates: None,
        odd: Vec::new(),
    }
}

#[test]
fn a_control_plane_that_is_well() {
    let plane = judge(&well());
    assert_eq!((plane.verdict, &plane.wrong, &plane.unknown), (Verdict::Well, &vec![], &vec![]));
    // Its own scheduler's pod is no matter: it is asked itself, or there is none.
    let names: Vec<_> = plane.components.iter().map(|row| (row.component.as_str(), row.node.as_deref())).collect();
    assert_eq!(names, [("kube-apiserver", Some("n1")), ("etcd", Some("n1")), ("kube-scheduler", Some("n2"))]);
    let member = &plane.etcd.as_ref().unwrap()[0];
    assert_eq!((member.id.as_str(), member.address.as_str(), member.leader), ("a", "https://192.0.2.10:2379", true));
    let lines = text(&plane);
    assert!(lines.contains("COMPONENT") && lines.contains("MEMBER") && lines.contains("v1.33.0"), "{lines}");
}

#[test]
fn s01_what_is_wrong_is_named_once_and_with_its_reason() {
    let mut found = well();
    found.asked = vec![
        asked("kube-apiserver", &[("/livez", Err("status 500: etcd not well")), ("/readyz", Err("no answer"))]),
        asked("etcd", &[("/livez", Err("Connection refused"))]),
    ];
    found.told = Ok(Told { version: Ok("v1.36.2".into()), nodes: Err("no answer".into()), pods: Err("late".into()) });
    found.etcd = Some(Err("Connection refused".into()));
    let plane = judge(&found);
    assert_eq!(plane.verdict, Verdict::Wrong);
    assert_eq!(
        plane.wrong,
        [
            "kube-apiserver on n1: /livez: status 500: etcd not well; /readyz: no answer",
            "etcd on n1: Connection refused"
        ]
    );
    assert_eq!(plane.unknown, Vec::<String>::new(), "the reason has been told");
}

#[test]
fn what_cannot_be_asked_is_unknown() {
    let mut found = well();
    found.told = Err("no kubeconfig".into());
    let plane = judge(&found);
    assert_eq!((plane.verdict, plane.unknown.len()), (Verdict::Unknown, 1));
    found.told = Ok(Told { version: Ok("v1.36.2".into()), nodes: Err("forbidden".into()), pods: Ok(Vec::new()) });
    assert_eq!(judge(&found).unknown, ["the Nodes: forbidden"]);
}

#[test]
fn kubelets_may_be_three_minors_behind_and_none_ahead() {
    let mut found = well();
    let nodes = ["v1.36.9", "v1.37.0", "v1.32.0", "odd"].map(|version| seen(version, version));
    found.told = Ok(Told { version: Ok("v1.36.2".into()), nodes: Ok(nodes.into()), pods: Ok(Vec::new()) });
    let wrong = judge(&found).wrong;
    assert!(wrong.len() == 2 && wrong[0].contains("v1.37.0") && wrong[1].contains("v1.32.0"), "{wrong:?}");
}

#[test]
fn a_member_that_is_ill_is_wrong_whoever_is_asked() {
    let mut found = well();
    found.etcd = Some(Ok(vec![health(10, None), health(11, Some("no answer"))]));
    let plane = judge(&found);
    assert_eq!(plane.wrong, ["etcd member n11 (b): no answer"]);
    assert!(!plane.etcd.unwrap()[1].healthy);
}

#[test]
fn certificates_are_noted_before_they_run_out_and_wrong_then() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    let now = Timestamp::now();
    ensure_all(&cluster(), &node(), &paths, &Options::default(), now).unwrap();
    let of = |days: i64| {
        let then = now + SignedDuration::from_hours(24 * days);
        judge(&Found { certificates: Some(expiry::look(&paths, then)), ..well() })
    };
    let today = of(0);
    assert!(today.notes.is_empty() && today.certificates.iter().all(|row| row.days > Some(360)), "{today:?}");
    let late = of(350);
    assert!(late.verdict == Verdict::Well && late.notes.iter().any(|note| note.contains("apiserver runs out")));
    let over = of(400);
    assert!(over.wrong.iter().any(|words| words.starts_with("certificate apiserver has run out")), "{:?}", over.wrong);
}
