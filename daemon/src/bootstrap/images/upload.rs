//! One blob into containerd's content store: the stream of `Content.Write`.

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{WriteAction, WriteContentRequest};
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::bundle::Blob;
use super::containerd::scoped;

/// Bytes of a message; containerd takes up to 16 MiB.
const CHUNK: usize = 1 << 20;
/// How long another writer of the same blob is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Writes a blob, whose digest containerd checks again; says whether it was there already. What an interrupted writer of the
/// same blob has left is gone on with.
///
/// # Errors
/// containerd's answer.
pub(super) async fn upload(client: ContentClient<Channel>, blob: &Blob, lease: &str) -> Result<bool, Status> {
    let end = Instant::now() + LOCK_LIMIT;
    loop {
        match write(client.clone(), blob, lease).await {
            Ok(()) => return Ok(false),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(true),
            // Somebody holds the lock on this blob: another import, or what is left of one that was killed just now.
            Err(status) if status.code() == Code::Unavailable && Instant::now() < end => {
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(status) => return Err(status),
        }
    }
}

async fn write(mut client: ContentClient<Channel>, blob: &Blob, lease: &str) -> Result<(), Status> {
    let total = signed(blob.size);
    let first = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: format!("weft-{}", blob.digest.hex()),
        total,
        expected: blob.digest.to_string(),
        ..Default::default()
    };
    let (to, from) = mpsc::channel(4);
    let gone = || Status::internal("containerd has closed the stream");
    to.send(first).await.map_err(|_| gone())?;
    let requests = stream::unfold(from, |mut from| async { Some((from.recv().await?, from)) });
    let mut answers = client.write(scoped(requests, Some(lease))).await?.into_inner();
    let begun = answers.message().await?.ok_or_else(gone)?;
    // Where the last writer has stopped.
    let offset = u64::try_from(begun.offset).unwrap_or_default();
    let blob = blob.clone();
    let feeding = tokio::task::spawn_blocking(move || feed(&blob, offset, &to));
    while let Some(answer) = answers.message().await? {
        if answer.action() == WriteAction::Commit {
            return Ok(());
        }
    }
    // It has ended early: either side may say why.
    match feeding.await {
        Ok(Err(error)) => Err(Status::data_loss(format!("cannot read the blob: {error}"))),
        _ => Err(gone()),
    }
}

/// Sends a blob from `offset` on, and then the commit. Ends early when nobody listens any more.
fn feed(blob: &Blob, offset: u64, to: &mpsc::Sender<WriteContentRequest>) -> io::Result<()> {
    let mut reader = blob.reader();
    io::copy(&mut (&mut reader).take(offset), &mut io::sink())?;
    let mut at = offset;
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        (&mut reader).take(1 << 20).read_to_end(&mut data)?;
        let count = u64::try_from(data.len()).unwrap_or_default();
        let is_last = count == 0;
        let mut request = WriteContentRequest { offset: signed(at), data, ..Default::default() };
        if is_last {
            request.action = WriteAction::Commit.into();
            request.total = signed(blob.size);
            request.expected = blob.digest.to_string();
            request.labels = blob.children.clone().into_iter().collect();
        } else {
            request.action = WriteAction::Write.into();
        }
        if to.blocking_send(request).is_err() || is_last {
            return Ok(());
        }
        at = at.saturating_add(count);
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
