//! What is to be done with etcd's members so that this node becomes, or ceases to be, one of them. Pure.

/// A member, as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its number.
    pub id: u64,
    /// Its name; empty as long as it has not started.
    pub name: String,
    /// URLs for the other members.
    pub peers: Vec<String>,
    /// URLs for clients; none as long as it has not started.
    pub clients: Vec<String>,
    /// Whether it has no vote yet.
    pub is_learner: bool,
}

/// How this node becomes a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is none.
    Add,
    /// It is one already, by an earlier attempt.
    Reuse(u64),
    /// One that had its address has lost its data: it would be let in no more, and must not vote as if it had them.
    Replace(u64),
}

/// How this node becomes a member.
pub(super) fn entry(members: &[EtcdMember], peer_url: &str, has_data: bool) -> Entry {
    match with_peer(members, peer_url) {
        None => Entry::Add,
        Some(member) if member.name.is_empty() || has_data => Entry::Reuse(member.id),
        Some(member) => Entry::Replace(member.id),
    }
}

/// The member at an address.
pub(super) fn with_peer<'a>(members: &'a [EtcdMember], peer_url: &str) -> Option<&'a EtcdMember> {
    members
        .iter()
        .find(|member| member.peers.iter().any(|url| url.trim_end_matches('/') == peer_url.trim_end_matches('/')))
}

/// etcd's `--initial-cluster`: each member by its name, this one by the one it will have. Of others that have not started
/// only the number is known (kubeadm's `etcd.AddMember`).
pub(super) fn initial_cluster(members: &[EtcdMember], own: u64, name: &str) -> String {
    let pairs = members.iter().flat_map(|member| {
        let name = match member {
            member if member.id == own => name.to_owned(),
            member if member.name.is_empty() => format!("{:x}", member.id),
            member => member.name.clone(),
        };
        member.peers.iter().map(move |url| format!("{name}={url}"))
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// What a reset does with this node's member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// It goes.
    Remove(u64),
    /// It is none.
    Absent,
    /// It is the last that votes: with it goes all that the cluster knows.
    Last,
}

/// What a reset does with the member at an address.
pub(super) fn leave(members: &[EtcdMember], peer_url: &str) -> Leave {
    let Some(member) = with_peer(members, peer_url) else { return Leave::Absent };
    let others = members.iter().filter(|other| other.id != member.id && !other.is_learner).count();
    if others == 0 && !member.is_learner { Leave::Last } else { Leave::Remove(member.id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, is_learner: bool) -> EtcdMember {
        EtcdMember {
            id,
            name: name.to_owned(),
            peers: vec![format!("https://192.0.2.{id}:2380")],
            clients: Vec::new(),
            is_learner,
        }
    }

    #[test]
    fn j15_an_address_never_has_two_members() {
        let url = "https://192.0.2.2:2380";
        let with = |second| [member(1, "n1", false), second];
        assert_eq!(entry(&[member(1, "n1", false)], url, false), Entry::Add);
        assert_eq!(entry(&with(member(2, "", true)), url, false), Entry::Reuse(2));
        assert_eq!(entry(&with(member(2, "n2", false)), url, true), Entry::Reuse(2));
        assert_eq!(entry(&with(member(2, "n2", false)), url, false), Entry::Replace(2));
        assert_eq!(entry(&with(member(2, "n2", true)), "https://192.0.2.2:2380/", false), Entry::Replace(2));
    }

    #[test]
    fn j14_all_members_are_named() {
        let members = [member(1, "n1", false), member(2, "", true), member(0xabc, "", true)];
        assert_eq!(
            initial_cluster(&members, 2, "n2"),
            "n1=https://192.0.2.1:2380,n2=https://192.0.2.2:2380,abc=https://192.0.2.2748:2380"
        );
    }

    #[test]
    fn the_last_that_votes_stays() {
        let url = "https://192.0.2.1:2380";
        assert_eq!(leave(&[member(1, "n1", false)], url), Leave::Last);
        assert_eq!(leave(&[member(1, "n1", false), member(2, "n2", true)], url), Leave::Last);
        assert_eq!(leave(&[member(1, "n1", false), member(2, "n2", false)], url), Leave::Remove(1));
        assert_eq!(leave(&[member(1, "n1", true), member(2, "n2", false)], url), Leave::Remove(1));
        assert_eq!(leave(&[member(2, "n2", false)], url), Leave::Absent);
    }
}
