//! What was done, a line a step, as it is done.

/// The steps of one run. Counts those that failed, so that the run can go on where it may.
#[derive(Debug, Default)]
pub struct Report {
    failed: usize,
}

impl Report {
    /// A step that changed something.
    pub fn done(&mut self, step: &str, words: &str) {
        println!("{step}: {words}");
    }

    /// A step that found nothing to do.
    pub fn nothing(&mut self, step: &str, words: &str) {
        println!("{step}: nothing to do, {words}");
    }

    /// What is left to whoever runs the command, and keeps nobody from anything.
    pub fn note(&mut self, step: &str, words: &str) {
        println!("{step}: note: {words}");
    }

    /// A step that could not be done, or not all of it.
    pub fn failed(&mut self, step: &str, words: &str) {
        eprintln!("weft migrate: {step}: {words}");
        self.failed += 1;
    }

    /// The outcome of a step; `words` says what was done.
    pub fn outcome<E: std::fmt::Display>(&mut self, step: &str, outcome: Result<(), E>, words: &str) {
        match outcome {
            Ok(()) => self.done(step, words),
            Err(error) => self.failed(step, &error.to_string()),
        }
    }

    /// How many steps failed.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failed
    }
}
