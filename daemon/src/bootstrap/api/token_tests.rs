//! Tokens: what is one, what may be said of it, and that its Secret says the same.

use std::collections::HashSet;

use super::token::*;
use crate::bootstrap::config::model::BootstrapToken;
use jiff::Timestamp;

const TOKEN: &str = "abcdef.0123456789abcdef";

fn now() -> Timestamp {
    "2026-11-26T23:00:00Z".parse().unwrap()
}

fn config() -> BootstrapToken {
    BootstrapToken { token: TOKEN.to_owned(), ..BootstrapToken::default() }
}

#[test]
fn a_token_has_one_form() {
    let token: Token = TOKEN.parse().unwrap();
    assert_eq!((token.id(), token.secret(), token.reveal().as_str()), ("abcdef", "0123456789abcdef", TOKEN));
    assert!(!format!("{token:?}").contains("0123456789"), "the secret is not shown");
    for wrong in
        ["", "abcdef", "abcdef.", "Abcdef.0123456789abcdef", "abcde.0123456789abcdef", "abcdef.0123456789abcdefg"]
    {
        assert_eq!(wrong.parse::<Token>(), Err(TokenError::Form), "{wrong}");
    }
    assert_eq!((id_of("abcdef").unwrap(), id_of(TOKEN).unwrap()), ("abcdef".to_owned(), "abcdef".to_owned()));
    assert!(!id_of("abcdef.0123456789abcdeX").unwrap_err().to_string().contains("abcdeX"));
    assert!(id_of("nope").unwrap_err().to_string().contains("nope"));
}

#[test]
fn generated_tokens_differ_and_use_all_letters() {
    let made: HashSet<String> = (0..200).map(|_| Token::generate().unwrap().reveal()).collect();
    assert_eq!(made.len(), 200);
    let letters: HashSet<char> = made.iter().flat_map(|text| text.chars()).collect();
    assert_eq!(letters.len(), 37);
    assert!(made.iter().all(|text| text.parse::<Token>().is_ok()));
}

#[test]
fn what_is_left_out_is_kubeadms_default() {
    let spec = TokenSpec::from_config(&config(), now()).unwrap();
    assert_eq!(spec.expires, Some("2026-11-27T23:00:00Z".parse().unwrap()));
    assert_eq!((spec.usages.join(","), spec.groups.join(",")), ("signing,authentication".into(), DEFAULT_GROUP.into()));
    let secret = spec.to_secret();
    assert_eq!((&secret["type"], &secret["metadata"]["name"]), (&SECRET_TYPE.into(), &"bootstrap-token-abcdef".into()));
    assert_eq!(secret["data"]["expiration"], "MjAyNi0xMS0yN1QyMzowMDowMFo=");
    let back = TokenSpec::from_secret(&secret).unwrap();
    assert!(back.is_but_for_the_end(&spec) && back.expires == spec.expires, "{back:?}");
}

#[test]
fn j03_the_rules_are_kept() {
    let refused = |change: fn(&mut BootstrapToken)| {
        let mut config = config();
        change(&mut config);
        TokenSpec::from_config(&config, now()).unwrap_err()
    };
    assert!(matches!(refused(|it| it.usages = vec!["x".into()]), TokenError::Usage(_)));
    assert!(matches!(refused(|it| it.groups = vec!["system:masters".into()]), TokenError::Group(_)));
    assert!(matches!(refused(|it| it.groups = vec!["system:bootstrappers:a-".into()]), TokenError::Group(_)));
    assert!(matches!(refused(|it| it.groups = vec!["system:bootstrappers:".into()]), TokenError::Group(_)));
    assert_eq!(refused(|it| it.usages = vec!["signing".into()]), TokenError::GroupsUnused);
    assert!(matches!(refused(|it| it.ttl = Some("1 day".into())), TokenError::Time(_)));
    let both = |it: &mut BootstrapToken| {
        (it.ttl, it.expires) = (Some("1h".into()), Some("2030-01-01T00:00:00Z".into()));
    };
    assert_eq!(refused(both), TokenError::TwoEnds);
    let forever = BootstrapToken { ttl: Some("0".into()), ..config() };
    let secret = TokenSpec::from_config(&forever, now()).unwrap().to_secret();
    assert!(secret["data"].get("expiration").is_none());
}

#[test]
fn j04_a_broken_secret_says_what_is_wrong() {
    let good = TokenSpec::from_config(&config(), now()).unwrap().to_secret();
    for (key, value, word) in [
        ("token-id", "", "token-id"),
        ("token-id", "Z2hpamts", "ghijkl"),
        ("token-secret", "eA==", "no bootstrap token"),
        ("expiration", "eA==", "no time"),
        ("description", "_", "description"),
    ] {
        let mut broken = good.clone();
        broken["data"][key] = value.into();
        let error = TokenSpec::from_secret(&broken).unwrap_err().to_string();
        assert!(error.contains(word), "{key}: {error}");
    }
}
