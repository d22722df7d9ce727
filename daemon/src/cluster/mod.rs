//! What the cluster says: the sources (etcd, Kubernetes), and the model they yield.
//!
//! A source publishes [`model::Snapshot`]s: all leases at one revision, never an edge alone. Formats (keys, values, the
//! network configuration) are flannel's and are read and written here only. Nothing here knows the kernel; a new source
//! or a new format comes in here, what is done with a snapshot does not.

pub mod backoff;
pub mod etcd;
pub mod events;
pub mod family;
pub(crate) mod fields;
pub(crate) mod json;
pub mod key;
pub mod kube;
pub mod last_known;
pub mod layout;
pub mod lease_value;
pub mod model;
pub mod netconf;
pub mod node;
mod outage;
pub mod pool;
pub mod services;
pub mod source;
pub mod view;

pub use events::Events;
pub use family::{Family, PerFamily};
pub use fields::NetConfError;
pub use key::SubnetKey;
pub use layout::Layout;
pub use lease_value::BackendData;
pub use model::{Lease, Rejected, Snapshot};
pub use netconf::NetConf;
pub use node::NodeName;
pub use source::{SourceHandle, SourceStatus};
