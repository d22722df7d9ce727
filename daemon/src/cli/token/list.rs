//! `weft token list`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::TokenArgs;
use crate::bootstrap::api::{TokenSpec, list_tokens};
use crate::bootstrap::{duration, yaml};

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object for each token.
    Json,
    /// One YAML document for each token.
    Yaml,
}

/// List the tokens. A Secret that is none is told on stderr, and the others are listed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft token list -o json")]
pub(super) struct ListArgs {
    /// How the answer looks
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: &TokenArgs, list: &ListArgs) -> anyhow::Result<ExitCode> {
    let (tokens, broken) = list_tokens(&args.server().await?).await?;
    for (name, error) in broken {
        eprintln!("weft token: Secret kube-system/{name} is no token: {error}");
    }
    let now = Timestamp::now();
    match list.output {
        Output::Text => print!("{}", table(&tokens, now)),
        Output::Json => tokens.iter().for_each(|token| println!("{:#}", object(token))),
        Output::Yaml => {
            for token in &tokens {
                println!("---\n{}", yaml::to_string(&object(token)).trim_end());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// As kubeadm prints one (`output.kubeadm.k8s.io/v1alpha3`).
fn object(token: &TokenSpec) -> Value {
    let mut object = json!({
        "kind": "BootstrapToken", "apiVersion": "output.kubeadm.k8s.io/v1alpha3",
        "token": token.token.reveal(), "usages": token.usages,
    });
    if let Some(description) = &token.description {
        object["description"] = json!(description);
    }
    if let Some(expires) = token.expires {
        object["expires"] = json!(expires.to_string());
    }
    if !token.groups.is_empty() {
        object["groups"] = json!(token.groups);
    }
    object
}

fn table(tokens: &[TokenSpec], now: Timestamp) -> String {
    let header = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned);
    let rows: Vec<[String; 6]> = [header].into_iter().chain(tokens.iter().map(|token| row(token, now))).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:<0$}", width(at)));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

fn row(token: &TokenSpec, now: Timestamp) -> [String; 6] {
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let (ttl, expires) = match (token.left(now), token.expires) {
        (Some(left), Some(end)) if left.is_zero() => ("<invalid>".to_owned(), end.to_string()),
        (Some(left), Some(end)) => (duration::short(left), end.to_string()),
        _ => ("<forever>".to_owned(), "<never>".to_owned()),
    };
    [
        token.token.reveal(),
        ttl,
        expires,
        or_none(token.usages.join(",")),
        or_none(token.description.clone().unwrap_or_default()),
        or_none(token.groups.join(",")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::config::model::BootstrapToken;

    #[test]
    fn tokens_are_shown_as_kubeadm_shows_them() {
        let now: Timestamp = "2026-11-26T23:00:00Z".parse().unwrap();
        let of = |ttl: &str, description: Option<&str>| {
            let config = BootstrapToken {
                token: "abcdef.0123456789abcdef".to_owned(),
                ttl: Some(ttl.to_owned()),
                description: description.map(str::to_owned),
                ..BootstrapToken::default()
            };
            TokenSpec::from_config(&config, now).unwrap()
        };
        let tokens = [of("24h", Some("for the lab")), of("0", None)];
        let text = table(&tokens, now);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("TOKEN ") && lines[0].ends_with("EXTRA GROUPS"), "{text}");
        assert!(lines[1].contains(" 24h ") && lines[1].contains("2026-11-27T23:00:00Z"), "{text}");
        assert!(lines[2].contains("<forever>   <never>") && lines[2].contains("<none>"), "{text}");
        assert!(row(&tokens[0], tokens[0].expires.unwrap())[1].contains("<invalid>"));
        let shown = object(&tokens[1]);
        assert_eq!(shown["kind"], "BootstrapToken");
        assert!(shown.get("expires").is_none() && shown.get("description").is_none(), "{shown}");
    }
}
