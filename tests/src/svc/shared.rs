//! One bench for many tests.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Bench;

/// A bench that is there while any test uses it, and goes with the last one.
///
/// Tests run beside each other, so that is once for all of them as a rule; a static that lives to the end would leave its
/// namespaces behind, as statics are not dropped.
#[derive(Debug)]
pub struct Shared {
    agent_args: &'static [&'static str],
    bench: Mutex<Weak<Bench>>,
}

impl Shared {
    /// A bench whose agents have these further arguments.
    #[must_use]
    pub const fn new(agent_args: &'static [&'static str]) -> Self {
        Self { agent_args, bench: Mutex::new(Weak::new()) }
    }

    /// The bench, brought up if need be.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn get(&self) -> Arc<Bench> {
        // A test that panicked while the bench came up has left nothing here.
        let mut place = self.bench.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bench) = place.upgrade() {
            return bench;
        }
        let bench = Arc::new(Bench::up(self.agent_args));
        *place = Arc::downgrade(&bench);
        bench
    }
}
