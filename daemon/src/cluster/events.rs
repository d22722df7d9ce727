//! What happened on this node that an operator should see in the cluster. Where the cluster has a place for it (Kubernetes'
//! events) somebody takes it there; nobody ever waits for that.

use tokio::sync::mpsc;

use super::services::ObjectName;

/// What waits to be taken to the cluster, at most; what comes then is in the log only.
const QUEUE: usize = 32;

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    /// The own Node.
    Node,
    /// A Service.
    Service(ObjectName),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Happening {
    /// What it is about.
    pub about: About,
    /// Whether somebody should do something about it.
    pub is_warning: bool,
    /// One word for it, for those who count.
    pub reason: &'static str,
    /// What was being done, in one word.
    pub action: &'static str,
    /// What to tell a person.
    pub note: String,
}

impl Happening {
    /// Something about the own Node that somebody should mend.
    #[must_use]
    pub fn warning(reason: &'static str, action: &'static str, note: impl Into<String>) -> Self {
        Self { about: About::Node, is_warning: true, reason, action, note: note.into() }
    }
}

/// Where to tell it.
#[derive(Debug, Clone, Default)]
pub struct Events(Option<mpsc::Sender<Happening>>);

impl Events {
    /// A way to somebody who takes events to the cluster.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Happening>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(Some(sender)), receiver)
    }

    /// Tells it, if there is anybody to tell, and he has not too much to do already.
    pub fn tell(&self, happening: Happening) {
        if let Some(sender) = &self.0
            && sender.try_send(happening).is_err()
        {
            tracing::debug!("an event is not taken to the cluster: too many of them, or no way there");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn telling_never_waits() {
        let (events, mut told) = Events::channel();
        for n in 0..QUEUE * 2 {
            events.tell(Happening::warning("R", "A", n.to_string()));
        }
        assert_eq!(told.recv().await.unwrap().note, "0");
        drop(told);
        events.tell(Happening::warning("R", "A", "nobody"));
        Events::default().tell(Happening::warning("R", "A", "no cluster"));
    }
}
