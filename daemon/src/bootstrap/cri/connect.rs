//! The way to the runtime, and one call over it.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::error::{CriError, is_unknown_service};

/// How long a runtime has to take a connection: as kubeadm's preflight.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long it has for what it answers from memory.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Lists of busy nodes are longer than gRPC's usual 4 MiB; kubelet allows as much.
const MESSAGE_LIMIT: usize = 16 << 20;

/// A runtime that answers at a socket.
#[derive(Debug, Clone)]
pub struct Cri {
    socket: PathBuf,
    channel: Channel,
}

impl Cri {
    /// Connects to a runtime's socket: `unix:///run/…` or an absolute path.
    ///
    /// # Errors
    /// When there is none, in all the ways in which that is: [`CriError::Missing`], [`CriError::NotASocket`],
    /// [`CriError::Deaf`].
    pub async fn connect(socket: &str) -> Result<Self, CriError> {
        let socket = socket_path(socket)?;
        let channel = channel(&socket).await?;
        Ok(Self { socket, channel })
    }

    /// The connection, for containerd's own services.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The runtime's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub(super) fn image(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Waits for an answer, up to `limit`.
    pub(super) async fn answer<T>(
        &self,
        call: &'static str,
        object: &str,
        limit: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CriError> {
        match tokio::time::timeout(limit, answer).await {
            Err(_) => Err(CriError::Slow { call, limit }),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if is_unknown_service(&status) => {
                Err(CriError::NoCri { socket: self.socket.clone(), cause: status.message().to_owned() })
            }
            Ok(Err(status)) => Err(CriError::Refused { call, object: object.to_owned(), status: Box::new(status) }),
        }
    }
}

/// The file of a socket's address.
///
/// # Errors
/// When it is another kind of address, or no absolute path.
pub fn socket_path(address: &str) -> Result<PathBuf, CriError> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if path.starts_with('/') { Ok(path.into()) } else { Err(CriError::Address(address.to_owned())) }
}

/// A connection to a gRPC server at a socket.
///
/// # Errors
/// As [`Cri::connect`].
pub async fn channel(socket: &Path) -> Result<Channel, CriError> {
    match std::fs::metadata(socket) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(CriError::Missing(socket.to_owned())),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(CriError::NotASocket(socket.to_owned())),
        _ => {}
    }
    let deaf = |cause: String| CriError::Deaf { socket: socket.to_owned(), cause };
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // Nobody looks at the address; gRPC wants one.
    let endpoint = Endpoint::from_static("http://localhost");
    match tokio::time::timeout(CONNECT_LIMIT, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(deaf(root_cause(&error))),
        Err(_) => Err(deaf(format!("no connection within {} s", CONNECT_LIMIT.as_secs()))),
    }
}

/// The last of an error's causes; the first is only "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses_with_and_without_a_scheme() {
        for good in ["unix:///run/c.sock", "/run/c.sock"] {
            assert_eq!(socket_path(good).unwrap(), Path::new("/run/c.sock"));
        }
        for bad in ["tcp://127.0.0.1:1", "run/c.sock", "", "npipe:////./pipe/x"] {
            assert!(matches!(socket_path(bad), Err(CriError::Address(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn each_way_of_not_being_there_has_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(matches!(channel(&at("none")).await, Err(CriError::Missing(_))));
        std::fs::write(at("file"), "").unwrap();
        assert!(matches!(channel(&at("file")).await, Err(CriError::NotASocket(_))));
        drop(UnixListener::bind(at("left-behind")).unwrap());
        let error = channel(&at("left-behind")).await.unwrap_err();
        assert!(matches!(&error, CriError::Deaf { cause, .. } if cause.contains("refused")), "{error}");
        assert!(error.to_string().contains("is it running"), "{error}");
    }
}
