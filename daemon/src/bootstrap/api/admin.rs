//! The first use of `admin.conf`: its group has no rights before somebody has given it some (kubeadm's
//! `EnsureAdminClusterRoleBinding`).

use super::error::ApiError;
use super::object::{Outcome, Place};
use super::rbac;
use super::server::{Existing, Server};
use crate::bootstrap::resolved::{Limits, Paths};
use crate::cluster::kube::api::Refusal;

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
    let mut made = false;
    let outcome = admin
        .persist("write", &place.words, async || match (admin.create_once(&binding).await, &superuser) {
            (Ok(_), _) => Ok(Outcome::Made),
            (Err(refusal), _) if refusal.code == Some(409) => Ok(if made { Outcome::Made } else { Outcome::Kept }),
            (Err(refusal), Some(superuser)) if refusal.code == Some(403) => {
                made |= superuser.ensure_once(&place, &binding, Existing::Keep).await? == Outcome::Made;
                // The right is in force once admin.conf is told that the binding is there.
                Err(refusal)
            }
            (Err(refusal), None) if refusal.code == Some(403) => {
                let words = format!(
                    "{}; admin.conf has no rights: run this on the node of the first init, where super-admin.conf is, or \
                     bind the group kubeadm:cluster-admins to cluster-admin",
                    refusal.words
                );
                Err(Refusal { words, ..refusal })
            }
            (Err(refusal), _) => Err(refusal),
        })
        .await?;
    Ok((admin, outcome))
}
