//! The agent's chains as a table of the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_netlink::Error;
use weft_netlink::nft::{BaseChain, Batch, CommitError, Socket};

use super::plan::PlannedChain;
use super::{SERVICE_PREFIX, agent_table};
use crate::reconcile::{Table, Update};

/// What a chain holds, as far as it can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainContent {
    base: Option<BaseChain>,
    /// The comments of its rules, which identify their content.
    comments: Vec<String>,
    /// The rules are not, to the byte, those that were there after the last commit, or their table sleeps.
    tampered: bool,
}

impl ChainContent {
    /// What a planned chain should hold.
    #[must_use]
    pub fn of(planned: &PlannedChain) -> Self {
        let comments =
            planned.rules.iter().map(|rule| rule.comment.as_deref().unwrap_or_default().to_owned()).collect();
        Self { base: planned.chain.base.clone(), comments, tampered: false }
    }
}

/// The kernel's part of the agent's table.
#[derive(Debug)]
pub struct FilterTable {
    socket: Socket,
    planned: Vec<PlannedChain>,
    /// The rules of each chain as the kernel had them when they were known to be right.
    known: BTreeMap<String, Vec<Vec<u8>>>,
}

/// Why rules could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] Error),
    /// The transaction failed, and changed nothing. It failed for all of its chains.
    #[error("{0}")]
    Commit(Arc<CommitError>),
}

impl From<CommitError> for FilterError {
    fn from(error: CommitError) -> Self {
        Self::Commit(Arc::new(error))
    }
}

impl FilterTable {
    /// Opens the way to nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel lacks nf_tables.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open()?, planned: Vec::new(), known: BTreeMap::new() })
    }

    /// Takes a plan, and returns the desired state it stands for.
    pub fn plan(&mut self, planned: Vec<PlannedChain>) -> BTreeMap<String, ChainContent> {
        self.planned = planned;
        self.planned.iter().map(|chain| (chain.chain.name.to_string(), ChainContent::of(chain))).collect()
    }

    fn commit(&mut self, objects: &[Update<String, ChainContent>]) -> Result<(), CommitError> {
        let table = agent_table();
        let mut batch = Batch::new();
        batch.add_table(&table);
        for update in objects {
            let Some(planned) = self.planned.iter().find(|planned| planned.chain.name == update.key) else { continue };
            // A chain's hook and priority cannot be changed.
            if update.before.as_ref().is_some_and(|before| before.base != planned.chain.base) {
                batch.delete_chain(&table, &update.key);
            }
            batch.add_chain(&table, &planned.chain);
            batch.flush_chain(&table, &update.key);
            for rule in &planned.rules {
                batch.add_rule(&table, rule);
            }
        }
        self.socket.commit(batch)?;
        for update in objects {
            // What the kernel made of it is known at the next dump.
            self.known.remove(&update.key);
        }
        Ok(())
    }
}

impl Table for FilterTable {
    type Key = String;
    type Value = ChainContent;
    type Error = FilterError;

    async fn dump(&mut self) -> Result<BTreeMap<String, ChainContent>, FilterError> {
        let table = agent_table();
        let mut contents = BTreeMap::new();
        let sleeps = self
            .socket
            .tables()?
            .iter()
            .any(|info| (info.table.family, &info.table.name) == (table.family, &table.name) && info.dormant);
        for info in self.socket.chains(&table)? {
            let name = info.chain.name.to_string();
            if name.starts_with(SERVICE_PREFIX) {
                continue;
            }
            let rules = self.socket.rules(&table, Some(&name))?;
            let comments: Vec<String> = rules.iter().map(|rule| rule.comment.clone().unwrap_or_default()).collect();
            let bytes: Vec<Vec<u8>> = rules.into_iter().map(|rule| rule.expressions).collect();
            // Right after a commit, or after a restart, the comments alone vouch for the rules.
            let tampered = match self.known.get(&name) {
                Some(known) => *known != bytes,
                None => {
                    self.known.insert(name.clone(), bytes);
                    false
                }
            };
            contents.insert(name, ChainContent { base: info.chain.base, comments, tampered: tampered || sleeps });
        }
        Ok(contents)
    }

    async fn update(&mut self, objects: &[Update<String, ChainContent>]) -> Vec<Result<(), FilterError>> {
        // One transaction: all chains or none, so that there is never a masquerade without its exceptions.
        match self.commit(objects) {
            Ok(()) => objects.iter().map(|_| Ok(())).collect(),
            Err(error) => {
                let error = Arc::new(error);
                objects.iter().map(|_| Err(FilterError::Commit(Arc::clone(&error)))).collect()
            }
        }
    }

    async fn delete(&mut self, objects: &[(String, ChainContent)]) -> Vec<Result<(), FilterError>> {
        let table = agent_table();
        let mut results = Vec::with_capacity(objects.len());
        for (name, _) in objects {
            let mut batch = Batch::new();
            batch.delete_chain(&table, name);
            self.known.remove(name);
            results.push(self.socket.commit(batch).map_err(FilterError::from));
        }
        results
    }
}
