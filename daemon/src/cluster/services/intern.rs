//! One copy of each text: the names of nodes, zones and ports come back in every slice.

use std::collections::HashSet;
use std::sync::Arc;

/// Fewest texts that are worth looking through for those that nobody uses any more.
const FIRST_LOOK: usize = 1024;

/// Texts in use. Those that nobody holds any more are let go now and then, so that it does not grow with the names of pods
/// long gone.
#[derive(Debug)]
pub struct Interner {
    texts: HashSet<Arc<str>>,
    /// At this size the unused are looked for.
    look_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self { texts: HashSet::new(), look_at: FIRST_LOOK }
    }
}

impl Interner {
    /// The shared copy of `text`.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        if self.texts.len() >= self.look_at {
            self.texts.retain(|known| Arc::strong_count(known) > 1);
            self.look_at = FIRST_LOOK.max(self.texts.len() * 2);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_held_once_and_the_unused_are_let_go() {
        let mut strings = Interner::default();
        let kept = strings.get("kept");
        assert!(Arc::ptr_eq(&kept, &strings.get("kept")));
        for n in 0..10 * FIRST_LOOK {
            strings.get(&n.to_string());
        }
        assert!(strings.texts.len() <= 2 * FIRST_LOOK);
        assert!(Arc::ptr_eq(&kept, &strings.get("kept")));
    }
}
