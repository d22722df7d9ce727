//! How each of etcd's members is, and a copy of what they hold.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{EtcdCluster, EtcdError, EtcdMember};
use crate::cluster::etcd::{EtcdOptions, connect, explain};

/// A snapshot holds every Secret.
const PRIVATE: u32 = 0o600;

/// A member, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdHealth {
    /// The member.
    pub member: EtcdMember,
    /// Whether it is the one that leads.
    pub is_leader: bool,
    /// Its version, `3.6.8`, if it has answered.
    pub version: Option<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl EtcdCluster {
    /// How each member is; asked once, each answer waited for so long.
    ///
    /// # Errors
    /// [`EtcdError::Refused`] if not even the members can be listed.
    pub async fn survey(&self, limit: Duration) -> Result<Vec<EtcdHealth>, EtcdError> {
        let refused = |words| EtcdError::Refused { verb: "list members", words };
        let late = || format!("no answer within {:.1} s", limit.as_secs_f64());
        let members = timeout(limit, self.list()).await.map_err(|_| refused(late()))?.map_err(refused)?;
        let asked = join_all(members.iter().map(|member| timeout(limit, self.status(member)))).await;
        let mut leaders = Vec::new();
        let mut found: Vec<EtcdHealth> = members
            .into_iter()
            .zip(asked)
            .map(|(member, answer)| {
                let (version, problem) = match answer.unwrap_or_else(|_| Err(late())) {
                    Ok(status) => {
                        leaders.push(status.leader);
                        (Some(status.version), status.problem)
                    }
                    Err(problem) => (None, Some(problem)),
                };
                EtcdHealth { member, is_leader: false, version, problem }
            })
            .collect();
        for health in &mut found {
            health.is_leader = health.version.is_some() && leaders.contains(&health.member.id);
        }
        Ok(found)
    }

    async fn status(&self, member: &EtcdMember) -> Result<Status, String> {
        if member.clients.is_empty() {
            return Err("it has not started".to_owned());
        }
        let options = EtcdOptions { endpoints: member.clients.clone(), ..self.options.clone() };
        let mut client = connect(&options).await.map_err(|error| error.to_string())?;
        let status = client.status().await.map_err(|error| explain(&error))?;
        let mut wrong = status.errors().to_vec();
        if status.leader() == 0 {
            wrong.push("it knows no leader: less than a majority of the members is there".to_owned());
        }
        let problem = (!wrong.is_empty()).then(|| wrong.join(", "));
        Ok(Status { leader: status.leader(), version: status.version().to_owned(), problem })
    }

    /// Writes a snapshot of all that etcd holds into a file that only root may read; `etcdutl snapshot restore` takes it. The
    /// file is not there if that fails.
    ///
    /// # Errors
    /// [`EtcdError::Refused`].
    pub async fn snapshot(&self, path: &Path) -> Result<(), EtcdError> {
        let refused = |words: String| EtcdError::Refused { verb: "take a snapshot", words };
        let part = path.with_extension("part");
        let written = timeout(self.limit, self.stream(&part)).await;
        let written = written.unwrap_or_else(|_| Err(format!("it is not whole after {} s", self.limit.as_secs())));
        let written = written.and_then(|()| fs::rename(&part, path).map_err(|error| shown(path, &error)));
        if written.is_err() {
            // What is not whole must not be taken for a backup; if it cannot go, its name says what it is.
            let _ = fs::remove_file(&part);
        }
        written.map_err(refused)
    }

    async fn stream(&self, path: &Path) -> Result<(), String> {
        let failed = |error: io::Error| shown(path, &error);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(path);
        let mut file: File = file.map_err(failed)?;
        let mut stream = self.client.clone().snapshot().await.map_err(|error| explain(&error))?;
        while let Some(part) = stream.message().await.map_err(|error| explain(&error))? {
            file.write_all(part.blob()).map_err(failed)?;
        }
        file.sync_all().map_err(failed)
    }
}

fn shown(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

struct Status {
    leader: u64,
    version: String,
    problem: Option<String>,
}
