//! Asking before everything goes.

use std::io::{self, BufRead, Write};

/// Nobody has said yes.
#[derive(Debug, thiserror::Error)]
pub enum NotConfirmed {
    /// Somebody has said something else.
    #[error("aborted: nothing was changed; answer y, or give --force")]
    Refused,
    /// Nobody is there to ask.
    #[error("aborted: nothing was changed, as nobody answers on standard input; give --force")]
    Closed,
    /// It could not be asked.
    #[error("cannot ask: {0}; give --force")]
    Io(#[from] io::Error),
}

/// Asks, and takes `y` and `yes` only.
///
/// # Errors
/// [`NotConfirmed`].
pub fn confirm(input: &mut impl BufRead, output: &mut impl Write) -> Result<(), NotConfirmed> {
    write!(output, "This takes the machine out of its cluster and removes what is listed above. Go on? [y/N]: ")?;
    output.flush()?;
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(NotConfirmed::Closed);
    }
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(NotConfirmed::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r03_only_yes_is_yes() {
        let ask = |text: &str| confirm(&mut text.as_bytes(), &mut Vec::new());
        assert!(ask("y\n").is_ok() && ask("YES\n").is_ok());
        assert!(matches!(ask("n\n"), Err(NotConfirmed::Refused)));
        assert!(matches!(ask("\n"), Err(NotConfirmed::Refused)));
        assert!(matches!(ask(""), Err(NotConfirmed::Closed)));
    }
}
