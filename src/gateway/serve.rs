//! Connections of the HTTP door, and their bounds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

use super::stream::Watched;

/// For the head of a request, and between two requests of one connection.
const HEAD: Duration = Duration::from_secs(30);
/// Longest head, in bytes: a key of 16 KiB with every byte percent-encoded, and some.
const MAX_HEAD: usize = 64 << 10;
/// For requests in flight to end when the door is closed.
const FINISH: Duration = Duration::from_secs(2);
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Once it becomes true, or nobody is left who could say so.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A bound port, and what is answered there.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    router: Router,
    max_connections: usize,
}

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("HTTP at {address}: {source}; choose another --http, or stop what is there")]
pub struct DoorError {
    /// Where it was to be.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

impl Door {
    pub(super) fn new(listener: TcpListener, router: Router, max_connections: usize) -> Door {
        Door { listener, router, max_connections }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes requests until `stop` becomes true, then finishes those in flight.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let Door { listener, router, max_connections } = self;
        let permits = Arc::new(Semaphore::new(max_connections.max(1)));
        // Every connection holds a sender; nothing is ever sent.
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        loop {
            // Beyond the bound they wait with the kernel, which refuses them once its queue is full, too.
            let permit = tokio::select! {
                permit = Arc::clone(&permits).acquire_owned() => permit,
                () = asked(&mut stop) => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = asked(&mut stop) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    log::warn!("no HTTP connection can be accepted: {error}; trying again");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Small answers should not wait; a socket that refuses is as good as closed.
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let service = TowerToHyperService::new(router.clone());
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(Watched::new(stream)), service);
            let (alive, mut stop) = (alive.clone(), stop.clone());
            tokio::spawn(async move {
                let mut connection = std::pin::pin!(connection);
                // However it ends, it is over: the other side may have gone, or sent what is no HTTP.
                tokio::select! {
                    _ = connection.as_mut() => {}
                    () = asked(&mut stop) => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
                drop((permit, alive));
            });
        }
        drop((alive, listener));
        // What has not finished by then is cut off; its client sees that the connection broke.
        let _ = tokio::time::timeout(FINISH, all_ended.recv()).await;
    }
}
