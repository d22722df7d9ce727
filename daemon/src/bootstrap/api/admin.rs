//! The first use of `admin.conf`: its group has no rights before somebody has given it some (kubeadm's
//! `EnsureAdminClusterRoleBinding`).

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::error::ApiError;
use super::object::{Outcome, Place};
use super::rbac;
use super::server::{Existing, Server};
use crate::bootstrap::resolved::{Limits, Paths};
use crate::cluster::kube::api::Refusal;

/// What is to be done where nobody here can give the right.
const NO_RIGHTS: &str = "admin.conf has no rights: run this on the node of the first init, where super-admin.conf is, or bind \
                         the group kubeadm:cluster-admins to cluster-admin";

/// The API server with `admin.conf`, which may then do everything; `super-admin.conf` gives it the right if it lacks it.
///
/// `endpoint` is the node's own, so that init does not depend on a load balancer.
///
/// # Errors
/// That a file is missing, or that the API server refuses; without `super-admin.conf` it says who can mend that.
pub async fn admin(paths: &Paths, endpoint: &str, limits: &Limits) -> Result<(Server, Outcome), ApiError> {
    let admin = Server::connect(&paths.kubernetes.join("admin.conf"), Some(endpoint), limits).await?;
    let file = paths.kubernetes.join("super-admin.conf");
    let superuser = match file.is_file() {
        true => Some(Server::connect(&file, Some(endpoint), limits).await?),
        false => None,
    };
    let binding = rbac::cluster_admins();
    let place = Place::of(&binding);
    let made = AtomicBool::new(false);
    let attempt = || async {
        let Err(refusal) = admin.create_once(&binding).await else { return Ok(Outcome::Made) };
        match (refusal.code, &superuser) {
            (Some(409), _) => Ok(if made.load(Relaxed) { Outcome::Made } else { Outcome::Kept }),
            (Some(403), Some(superuser)) => {
                let outcome = superuser.ensure_once(&place, &binding, Existing::Keep).await?;
                made.fetch_or(outcome == Outcome::Made, Relaxed);
                // The right is in force once admin.conf is told that the binding is there.
                Err(refusal)
            }
            (Some(403), None) => {
                let words = format!("{}; {NO_RIGHTS}", refusal.words);
                Err(Refusal { words, ..refusal })
            }
            _ => Err(refusal),
        }
    };
    let outcome = admin.persist("write", &place.words, attempt).await?;
    Ok((admin, outcome))
}
