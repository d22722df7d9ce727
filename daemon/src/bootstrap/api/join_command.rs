//! The line by which others join (contract section 1.14).

use super::pin::Pin;
use super::token::Token;

/// What stands for a secret that is not to be shown.
const WITHHELD: &str = "<value withheld>";

/// Whose command it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joiner {
    /// `weft join`.
    Weft,
    /// `kubeadm join`.
    Kubeadm,
}

/// What a joining node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinCommand {
    /// `host:port` of the API server.
    pub endpoint: String,
    /// The token; `None` if it is not to be shown.
    pub token: Option<Token>,
    /// Hashes of the authorities' keys.
    pub pins: Vec<Pin>,
    /// For a control-plane node: the key of the uploaded certificates.
    pub control_plane: Option<CertificateArgument>,
    /// Further options of weft's, such as `--kubernetes-bin`; kubeadm has none of them.
    pub further: Vec<String>,
}

/// The key of the uploaded certificates, as the line has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateArgument {
    /// Nothing was uploaded: the files have to be copied.
    None,
    /// It is not to be shown.
    Withheld,
    /// This key.
    Key(super::sealed::CertificateKey),
}

impl JoinCommand {
    /// On one line.
    #[must_use]
    pub fn line(&self, joiner: Joiner) -> String {
        self.parts(joiner).join(" ")
    }

    /// For people: a line for each part, with what a shell needs to take them as one.
    #[must_use]
    pub fn lines(&self, joiner: Joiner) -> String {
        self.parts(joiner).join(" \\\n\t")
    }

    fn parts(&self, joiner: Joiner) -> Vec<String> {
        let program = match joiner {
            Joiner::Weft => "weft",
            Joiner::Kubeadm => "kubeadm",
        };
        let token = self.token.as_ref().map_or_else(|| WITHHELD.to_owned(), Token::reveal);
        let mut parts = vec![format!("{program} join {} --token {token}", self.endpoint)];
        parts.extend(self.pins.iter().map(|pin| format!("--discovery-token-ca-cert-hash {pin}")));
        match &self.control_plane {
            None => {}
            Some(CertificateArgument::None) => parts.push("--control-plane".to_owned()),
            Some(CertificateArgument::Withheld) => parts.push(format!("--control-plane --certificate-key {WITHHELD}")),
            Some(CertificateArgument::Key(key)) => {
                parts.push(format!("--control-plane --certificate-key {}", key.reveal()));
            }
        }
        if joiner == Joiner::Weft {
            parts.extend(self.further.iter().cloned());
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j02_one_line_for_either_program() {
        let pin = format!("sha256:{}", "0a".repeat(32));
        let mut command = JoinCommand {
            endpoint: "192.0.2.1:6443".to_owned(),
            token: Some("abcdef.0123456789abcdef".parse().unwrap()),
            pins: vec![pin.parse().unwrap()],
            control_plane: None,
            further: vec!["--kubernetes-bin DIR".to_owned()],
        };
        let kubeadm =
            format!("kubeadm join 192.0.2.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {pin}");
        assert_eq!(command.line(Joiner::Kubeadm), kubeadm);
        assert_eq!(command.line(Joiner::Weft), format!("{} --kubernetes-bin DIR", kubeadm.replace("kubeadm", "weft")));
        assert_eq!(command.lines(Joiner::Kubeadm).lines().count(), 2);
        let key = "1".repeat(64);
        command.control_plane = Some(CertificateArgument::Key(key.parse().unwrap()));
        assert_eq!(command.line(Joiner::Kubeadm), format!("{kubeadm} --control-plane --certificate-key {key}"));
        (command.token, command.control_plane) = (None, Some(CertificateArgument::Withheld));
        let withheld = command.line(Joiner::Weft);
        assert_eq!(withheld.matches(WITHHELD).count(), 2);
        assert!(!withheld.contains("0123456789abcdef") && !withheld.contains(&key));
    }
}
