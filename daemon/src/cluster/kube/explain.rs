//! What an error of the API server's client means, in one line: the whole chain of causes, and what to look at.

use std::error::Error as StdError;

use kube::Error;
use kube::core::Status;

/// Words found in the chain of causes, and what they mean to the person who configured weft.
const HINTS: &[(&str, &str)] = &[
    ("UnknownIssuer", "the API server's certificate is not signed by the CA that the credentials name"),
    ("NotValidForName", "the API server's certificate does not name the host in kube-api-server"),
    ("InvalidContentType", "the server does not speak TLS"),
    ("Expired", "a certificate has expired; check the clock, too"),
    ("Connection refused", "is it running, and is kube-api-server its address?"),
    ("deadline has elapsed", NO_ANSWER),
    ("broken pipe", "the connection is gone: the API server, or the way to it, stands still or has ended"),
    ("timed out", NO_ANSWER),
    ("No route to host", NO_ANSWER),
    ("Network is unreachable", NO_ANSWER),
];

/// In a cluster without kube-proxy a pod is told an address that nobody serves yet.
const NO_ANSWER: &str = "no answer: if the address is the cluster's Service (such as 10.96.0.1) and weft is to serve that, \
                         set kube-api-server to the API server's own address";

/// The error as one line of plain words.
#[must_use]
pub fn explain(error: &Error) -> String {
    let text = match error {
        Error::Api(status) => return refusal(status),
        other => chain(other),
    };
    match HINTS.iter().find(|(word, _)| text.contains(word)) {
        Some((_, hint)) => format!("{text} ({hint})"),
        None => text,
    }
}

/// What the API server said instead of doing what it was asked to.
#[must_use]
pub fn refusal(status: &Status) -> String {
    let said = one_line(&status.message);
    match status.code {
        401 => format!("the API server does not take the credentials: {said} (an expired token or certificate?)"),
        403 => format!("the API server forbids it: {said} (an admission policy, or the RBAC rules of weft's account)"),
        code if said.contains("AdmissionPolicy") => format!("an admission policy forbids it ({code}): {said}"),
        code => format!("the API server says {code}: {said}"),
    }
}

/// The messages of an error and its causes, each once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = one_line(&error.to_string());
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> Error {
        Error::Api(Box::new(Status { code, message: message.to_owned(), ..Status::default() }))
    }

    #[test]
    fn refusals_are_one_clear_line() {
        let text = explain(&api(403, "nodes \"n1\" is forbidden:\n User cannot patch"));
        assert!(text.contains("nodes \"n1\" is forbidden: User cannot patch") && text.contains("RBAC"), "{text}");
        let text = explain(&api(422, "nodes \"n1\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: no"));
        assert!(text.starts_with("an admission policy forbids it (422): nodes"), "{text}");
        assert!(explain(&api(401, "Unauthorized")).contains("expired token"));
        assert_eq!(explain(&api(500, "etcd is slow")), "the API server says 500: etcd is slow");
    }

    #[test]
    fn no_answer_leads_to_the_address() {
        let error = Error::Service("connect: deadline has elapsed".into());
        assert!(explain(&error).contains("set kube-api-server"));
    }
}
