//! Reading a large range in pages, all at one revision: what comes is whole, or it is an error.

use etcd_client::{Client, Error, GetOptions, KeyValue};

/// Keys in the first page, and most keys in any.
const KEYS: (i64, i64) = (100, 1000);

/// How large a page should be, in bytes: the number of keys is adapted to it, because a value may have 100 bytes or 200,000,
/// and the whole page is in memory at once.
const BYTES: usize = 512 << 10;

/// Largest message that is taken, in bytes: far more than any page or transaction has.
pub(super) const MAX_MESSAGE: usize = 256 << 20;

/// Visits every key from the first to the one before the second, in order, and returns the revision at which all of them
/// stood so.
pub(super) async fn visit(
    client: &Client,
    (first, end): (String, String),
    mut visit: impl FnMut(&KeyValue),
) -> Result<i64, Error> {
    let mut client = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
    let partial = || Error::Internal("the answer to a read was not whole".to_owned());
    let mut next = first.into_bytes();
    let mut revision = None;
    let mut keys = KEYS.0;
    loop {
        let mut options = GetOptions::new().with_range(end.as_str()).with_limit(keys);
        if let Some(revision) = revision {
            options = options.with_revision(revision);
        }
        let page = client.get(next, Some(options)).await?;
        let at = match revision {
            Some(at) => at,
            None => page.header().ok_or_else(partial)?.revision(),
        };
        revision = Some(at);
        page.kvs().iter().for_each(&mut visit);
        if !page.more() {
            return Ok(at);
        }
        let last = page.kvs().last().ok_or_else(partial)?;
        // The first key that sorts after it.
        next = [last.key(), &[0]].concat();
        keys = adapted(keys, page.kvs().iter().map(|kv| kv.value().len()).sum());
    }
}

/// How many keys the next page should have, after one of `keys` keys had `bytes`.
fn adapted(keys: i64, bytes: usize) -> i64 {
    if bytes > BYTES {
        (keys / 2).max(1)
    } else if bytes < BYTES / 2 {
        (keys * 2).min(KEYS.1)
    } else {
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_size_of_the_values() {
        assert_eq!(adapted(KEYS.0, 0), 2 * KEYS.0);
        assert_eq!(adapted(KEYS.1, 0), KEYS.1);
        assert_eq!(adapted(8, BYTES + 1), 4);
        assert_eq!(adapted(1, BYTES * 100), 1);
        assert_eq!(adapted(8, BYTES), 8);
    }
}
