//! Waiting that explains: servers of the test's own, and an API server that does not start.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use weft::bootstrap::static_pods::Part;
use weft::bootstrap::waiting::diagnosis::Cause;
use weft::bootstrap::waiting::evidence::{Container, ContainerState, Evidence};
use weft::bootstrap::waiting::poll::{Progress, wait};
use weft::bootstrap::waiting::probe::Client;
use weft::bootstrap::waiting::targets::{Component, Target};
use weft_tests::node::peers;
use weft_tests::{skip, tool};

const SCHEDULER: Component = Component::Part(Part::Scheduler);

/// A server that answers 200 while `well`, else as an API server whose etcd is away.
async fn server(tls: bool, well: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["another.example".into()]).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config =
        config.unwrap().with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let well = well.load(Ordering::Relaxed);
            if !tls {
                answer(stream, well).await;
            } else if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, well).await;
            }
        }
    });
    address
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, well: bool) {
    let mut request = [0; 1024];
    let _ = stream.read(&mut request).await;
    let answer: &[u8] = if well {
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    } else {
        b"HTTP/1.1 500 No\r\ncontent-length: 32\r\nconnection: close\r\n\r\n[-]etcd failed: reason withheld\n"
    };
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

fn target(component: Component, address: SocketAddr, tls: bool, limit: u64) -> Target {
    Target { component, address, tls, path: "/livez".into(), limit: Duration::from_secs(limit) }
}

fn on(well: bool) -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(well))
}

#[tokio::test]
async fn all_are_asked_at_once_and_told_when_well() {
    let targets = [
        target(Component::Kubelet, server(false, on(true)).await, false, 60),
        target(SCHEDULER, server(true, on(true)).await, true, 60),
    ];
    let mut told = Vec::new();
    let gather = || async { panic!("there is nothing to explain") }.boxed();
    wait(&targets, &Client::anonymous().unwrap(), &gather, &mut |progress| told.push(progress)).await.unwrap();
    let mut who: Vec<String> = told
        .iter()
        .map(|progress| match progress {
            Progress::Healthy { component, .. } => component.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    who.sort();
    assert_eq!(who, ["kube-scheduler", "kubelet"]);
}

#[tokio::test]
async fn what_may_pass_is_told_and_waited_out() {
    let well = on(false);
    let targets = [target(SCHEDULER, server(true, Arc::clone(&well)).await, true, 120)];
    let suspicion =
        || async { Evidence { kubelet_lines: vec!["pod x: ErrImagePull".into()], ..Evidence::default() } }.boxed();
    let mut told = Vec::new();
    wait(&targets, &Client::anonymous().unwrap(), &suspicion, &mut |progress| {
        if let Progress::Suspicion(diagnosis) = &progress {
            assert_eq!((diagnosis.cause, diagnosis.certain), (Cause::Image, false));
            well.store(true, Ordering::Relaxed);
        }
        told.push(progress);
    })
    .await
    .unwrap();
    assert!(matches!(told.last(), Some(Progress::Healthy { component: SCHEDULER, .. })), "{told:?}");
    assert!(told.iter().any(|progress| matches!(progress, Progress::Suspicion(_))), "{told:?}");
}

#[tokio::test]
async fn a_limit_that_is_over_tells_the_last_answers_and_kubelets_last_lines() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let targets =
        [target(Component::Kubelet, free, false, 4), target(SCHEDULER, server(true, on(false)).await, true, 4)];
    let gather = || async { Evidence { kubelet_lines: vec!["still thinking".into()], ..Evidence::default() } }.boxed();
    let error = wait(&targets, &Client::anonymous().unwrap(), &gather, &mut |_| ()).await.unwrap_err();
    assert_eq!(error.cause(), None);
    let text = error.to_string();
    for wanted in [
        "not well after",
        "kubelet (",
        "refused",
        "kube-scheduler (status 500: etcd not well)",
        "kubelet | still thinking",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[tokio::test]
async fn i08_an_api_server_that_ends_at_its_start_is_told_of_within_15_seconds() {
    if let Err(reason) = peers::check(&["kube-apiserver"]) {
        skip!("{reason}");
    }
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let component = Component::Part(Part::ApiServer);
    // What a runtime would tell of the container: started again and again, its outputs kept.
    let attempts = Arc::new(Mutex::new(0));
    let gather = || {
        let attempts = Arc::clone(&attempts);
        async move {
            let program = peers::need("kube-apiserver").unwrap();
            let mut command = tool::command(program);
            command.arg("--no-such-flag=1").stdin(Stdio::null());
            let output = command.output().unwrap();
            let mut attempt = attempts.lock().unwrap();
            *attempt += 1;
            let code = output.status.code().unwrap();
            assert_ne!(code, 0);
            let lines = String::from_utf8_lossy(&output.stderr).lines().map(Into::into).collect();
            let state = ContainerState::Exited { code, reason: "Error".into(), message: String::new() };
            let containers = vec![Container { name: "kube-apiserver".into(), attempt: *attempt - 1, state, lines }];
            Evidence { containers, ..Evidence::default() }
        }
        .boxed()
    };
    let targets = [target(component, free, true, 240)];
    let error = wait(&targets, &Client::anonymous().unwrap(), &gather, &mut |_| ()).await.unwrap_err();
    // The second look is 5 s after the beginning, on a machine that does not stand still.
    assert_eq!(*attempts.lock().unwrap(), 2);
    let diagnosis = error.diagnosis.clone().unwrap();
    assert_eq!((diagnosis.cause, diagnosis.component), (Cause::Configuration, component));
    assert!(
        error.to_string().contains("unknown flag: --no-such-flag") && error.to_string().contains("extraArgs"),
        "{error}"
    );
}
