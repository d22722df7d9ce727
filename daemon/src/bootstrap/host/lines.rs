//! Lines of other people's files: commented out, and blocks put in, so that both can be taken back whatever else has been
//! written into the file meanwhile. Pure.

/// What a line that weft has made a comment of begins with.
pub const MARK: &str = "# weft: off: ";

/// The text with those lines made comments that `wanted` chooses; `None` if it chooses none.
#[must_use]
pub fn comment(text: &str, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let mut changed = false;
    let lines = text.split_inclusive('\n').map(|line| {
        if line.starts_with(MARK) || !wanted(line) {
            return line.to_owned();
        }
        changed = true;
        format!("{MARK}{line}")
    });
    let text: String = lines.collect();
    changed.then_some(text)
}

/// The text as it was before [`comment`]; `None` if it holds no such comment.
#[must_use]
pub fn uncomment(text: &str) -> Option<String> {
    let lines = text.split_inclusive('\n');
    text.contains(MARK).then(|| lines.map(|line| line.strip_prefix(MARK).unwrap_or(line)).collect())
}

/// The text with the block at its end, in the place of an older one of that name; `None` if it holds just that already.
#[must_use]
pub fn put_block(text: &str, name: &str, lines: &[String]) -> Option<String> {
    let mut new = remove_block(text, name).unwrap_or_else(|| text.to_owned());
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str(&begin(name));
    for line in lines {
        new.push_str(line);
        new.push('\n');
    }
    new.push_str(&end(name));
    (new != text).then_some(new)
}

/// The text without the block; `None` if it holds none. A block whose end is missing is left alone.
#[must_use]
pub fn remove_block(text: &str, name: &str) -> Option<String> {
    let (begin, end) = (begin(name), end(name));
    let start = text.find(&begin).filter(|start| *start == 0 || text[..*start].ends_with('\n'))?;
    let length = text[start..].find(&end)? + end.len();
    Some(format!("{}{}", &text[..start], &text[start + length..]))
}

fn begin(name: &str) -> String {
    format!("# weft: begin {name}\n")
}

fn end(name: &str) -> String {
    format!("# weft: end {name}\n")
}

/// Whether a line of fstab(5) is swap space.
#[must_use]
pub fn is_swap(line: &str) -> bool {
    let line = line.trim_start();
    !line.starts_with('#') && line.split_whitespace().nth(2) == Some("swap")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSTAB: &str =
        "UUID=1 / ext4 defaults 0 1\n#UUID=2 none swap sw 0 0\nUUID=3\tnone\tswap\tsw 0 0\n/swap none swap sw";

    #[test]
    fn p0_1_swap_lines_become_comments_and_lines_again() {
        let off = comment(FSTAB, is_swap).unwrap();
        assert_eq!(
            off,
            "UUID=1 / ext4 defaults 0 1\n#UUID=2 none swap sw 0 0\n# weft: off: UUID=3\tnone\tswap\tsw 0 0\n# weft: off: /swap none swap sw"
        );
        assert_eq!(comment(&off, is_swap), None, "a second time there is nothing to do");
        assert_eq!(uncomment(&off).unwrap(), FSTAB);
        assert_eq!(uncomment(FSTAB), None);
        assert_eq!(uncomment(&format!("tmpfs /tmp tmpfs\n{off}")).unwrap(), format!("tmpfs /tmp tmpfs\n{FSTAB}"));
    }

    #[test]
    fn a_block_is_put_replaced_and_removed() {
        let hosts = "127.0.0.1 localhost";
        let lines = |text: &str| vec![text.to_owned()];
        let one = put_block(hosts, "api", &lines("192.0.2.1 api")).unwrap();
        assert_eq!(one, "127.0.0.1 localhost\n# weft: begin api\n192.0.2.1 api\n# weft: end api\n");
        assert_eq!(put_block(&one, "api", &lines("192.0.2.1 api")), None);
        let two = put_block(&one, "api", &lines("192.0.2.2 api")).unwrap();
        assert!(two.contains("192.0.2.2") && !two.contains("192.0.2.1"), "{two}");
        let later = format!("{two}192.0.2.9 other\n");
        assert_eq!(remove_block(&later, "api").unwrap(), "127.0.0.1 localhost\n192.0.2.9 other\n");
        assert_eq!(remove_block(hosts, "api"), None);
        assert_eq!(remove_block("# weft: begin api\nx\n", "api"), None, "half a block is nobody's");
    }
}
