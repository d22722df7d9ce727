//! What `weft status` shows: the nodes with leases, peers, Services, repairs and versions, and what is wrong with them.
//!
//! In come the documents of agents ([`crate::serve::document`]) by [`fetch`], and with `--all` the nodes that the store tells of
//! by [`nodes`]; [`judge`] makes rows and problems of them (pure), [`table`] text. [`control_plane`] is the section that a node
//! with a control plane has besides.

pub mod control_plane;
pub mod fetch;
pub mod judge;
pub mod nodes;
pub mod table;
