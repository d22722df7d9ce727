//! `weft token` as a user meets it, and what the controllers make of its tokens.

use super::*;

/// `weft token` as an administrator.
fn weft(plane: &ControlPlane, args: &[&str]) -> Output {
    let mut command = tool::command(env!("CARGO_BIN_EXE_weft"));
    command.arg("token").arg("--kubeconfig").arg(plane.paths.kubernetes.join("admin.conf")).args(args);
    tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap()
}

pub(super) async fn j02_create_prints_one_line_and_the_signature_is_there(plane: &ControlPlane) {
    let made = weft(plane, &["create", "--ttl", "2h", "--print-join-command"]);
    assert_eq!((made.exit, made.stdout.lines().count()), (Some(0), 1), "{made:?}");
    let words: Vec<&str> = made.stdout.split_whitespace().collect();
    let pin = plane.pin();
    assert_eq!(words[..3], ["weft", "join", &plane.address.to_string()]);
    assert_eq!((words[3], words[5], words[6]), ("--token", "--discovery-token-ca-cert-hash", pin.as_str()));
    let token: Token = words[4].parse().unwrap();
    let info = plane.get(INFO).await;
    assert!(info["data"][format!("jws-kubeconfig-{}", token.id())].is_string(), "nobody has to wait: {info}");
    let secret = plane.get(&format!("{SECRETS}/bootstrap-token-{}", token.id())).await;
    let left = TokenSpec::from_secret(&secret).unwrap().left(Timestamp::now()).unwrap();
    assert!((7100..=7200).contains(&left.as_secs()), "{left:?}");
    // The controller manager signs the same way: nothing changes when it does.
    let signed = info["data"].clone();
    let held = wait_until_stable(plane).await;
    for (key, value) in signed.as_object().unwrap() {
        assert_eq!(&held["data"][key], value, "{key}");
    }
    let kubeadm = weft(plane, &["create", "--print-join-command", "--kubeadm", "--certificate-key", &"1".repeat(64)]);
    assert!(kubeadm.stdout.starts_with("kubeadm join ") && kubeadm.stdout.contains("--control-plane"), "{kubeadm:?}");
}

/// cluster-info once the controller manager has had its look at it: it signs for a token that we have not signed for.
async fn wait_until_stable(plane: &ControlPlane) -> Value {
    let probe = spec("probe0.0123456789abcdef", "1h");
    let server = plane.server().await;
    create_token(&server, &probe).await.unwrap();
    until("the controller manager's signature", async || {
        let info = plane.get(INFO).await;
        info["data"]["jws-kubeconfig-probe0"].is_string().then_some(info)
    })
    .await;
    // What it has signed is what we would have.
    assert_eq!(sign_cluster_info(&server, &probe).await.unwrap(), Outcome::Kept);
    let info = plane.get(INFO).await;
    delete_token(&server, "probe0").await.unwrap();
    info
}

pub(super) async fn j03_tokens_have_rules(plane: &ControlPlane) {
    let again = weft(plane, &["create", TOKEN]);
    assert!(again.exit == Some(1) && again.stderr.contains("is there already"), "{again:?}");
    assert!(!again.stderr.contains("0123456789abcdef"), "no secret in a message");
    let forever = weft(plane, &["create", "eterna.0123456789abcdef", "--ttl", "0"]);
    assert_eq!(forever.stdout, "eterna.0123456789abcdef\n", "{forever:?}");
    let secret = plane.get(&format!("{SECRETS}/bootstrap-token-eterna")).await;
    assert!(secret["data"].get("expiration").is_none());
    for (args, word) in [
        (&["create", "--groups", "system:masters"][..], "system:bootstrappers:"),
        (&["create", "--usages", "signing"], "authentication"),
        (&["create", "--usages", "nothing"], "signing"),
        (&["create", "--ttl", "soon"], "duration"),
        (&["create", "not-a-token"], "abcdef.0123456789abcdef"),
    ] {
        let refused = weft(plane, args);
        assert!(refused.exit == Some(1) && refused.stdout.is_empty(), "{args:?}: {refused:?}");
        assert!(refused.stderr.contains(word), "{args:?}: {refused:?}");
    }
}

pub(super) async fn j04_a_broken_secret_does_not_hide_the_others(plane: &ControlPlane) {
    let broken = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"namespace": "kube-system", "name": "bootstrap-token-broken"},
        "stringData": {"token-id": "others", "token-secret": "0123456789abcdef"}});
    plane.ask("POST", SECRETS, Some(&broken)).await.unwrap();
    let listed = weft(plane, &["list", "-o", "json"]);
    assert_eq!(listed.exit, Some(0), "{listed:?}");
    assert!(listed.stderr.contains("bootstrap-token-broken") && listed.stderr.contains("token-id"), "{listed:?}");
    let tokens: Vec<Value> =
        serde_json::Deserializer::from_str(&listed.stdout).into_iter().collect::<Result<_, _>>().unwrap();
    let ids: Vec<&str> = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert!(ids.contains(&TOKEN) && ids.contains(&"eterna.0123456789abcdef"), "{ids:?}");
    assert_eq!(tokens[0]["apiVersion"], "output.kubeadm.k8s.io/v1alpha3");
    let text = weft(plane, &["list"]);
    assert!(text.stdout.starts_with("TOKEN") && text.stdout.contains("<forever>"), "{}", text.stdout);
    plane.ask("DELETE", &format!("{SECRETS}/bootstrap-token-broken"), None).await.unwrap();
}

pub(super) async fn j06_an_expired_token_goes_and_its_signature_too(plane: &ControlPlane) {
    let made = weft(plane, &["create", "moment.0123456789abcdef", "--ttl", "15s"]);
    assert_eq!(made.exit, Some(0), "{made:?}");
    let key = "jws-kubeconfig-moment";
    assert!(plane.get(INFO).await["data"][key].is_string());
    until("the token to be gone", async || {
        plane.ask("GET", &format!("{SECRETS}/bootstrap-token-moment"), None).await.is_err().then_some(())
    })
    .await;
    until("its signature to be gone", async || plane.get(INFO).await["data"][key].is_null().then_some(())).await;
}

pub(super) async fn c07_generate_and_delete(plane: &ControlPlane) {
    let generated = weft(plane, &["generate"]);
    assert!(generated.stdout.trim().parse::<Token>().is_ok(), "{generated:?}");
    let mistyped = weft(plane, &["genorate"]);
    assert!(mistyped.exit == Some(2) && mistyped.stdout.is_empty(), "{mistyped:?}");
    let gone = weft(plane, &["delete", "eterna.0123456789abcdef"]);
    assert_eq!((gone.exit, gone.stdout.as_str()), (Some(0), "bootstrap token eterna deleted\n"), "{gone:?}");
    let again = weft(plane, &["delete", "eterna"]);
    assert!(again.exit == Some(1) && again.stderr.contains("no token eterna"), "{again:?}");
    let wrong = weft(plane, &["delete", "nonsense"]);
    assert!(wrong.exit == Some(1) && wrong.stderr.contains("nonsense"), "{wrong:?}");
    let dry = weft(plane, &["create", "--dry-run"]);
    let id = dry.stdout.trim().parse::<Token>().unwrap().id().to_owned();
    assert!(plane.ask("GET", &format!("{SECRETS}/bootstrap-token-{id}"), None).await.is_err());
}
