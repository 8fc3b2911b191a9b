//! Takes connections in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

use super::connection::{self, Shared};
use super::throttle::Throttle;

/// Waits after a failed accept, doubled from the first to the last: out of descriptors, accept fails at once and
/// for as long as nobody closes one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Accepts until `stop` says so or the node's task is gone. Each connection task holds a clone of `alive` until
/// it ends.
pub(crate) async fn listen(
    listener: TcpListener,
    shared: Arc<Shared>,
    max_connections: usize,
    mut stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
    busy: Throttle,
) {
    let permits = Arc::new(Semaphore::new(max_connections));
    let mut number: u32 = 0;
    let mut pause = PAUSE.0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error: whoever could stop us is gone, which is as good as being told.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            // The client has gone away while it waited; the next one may be there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                if let Some(more) = busy.pass() {
                    log::warn!("no connection can be accepted: {error}; trying again{more}");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                continue;
            }
        };
        pause = PAUSE.0;
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            if let Some(more) = busy.pass() {
                log::warn!(
                    "connection from {remote} closed: there are {max_connections} already \
                     (--max-connections){more}"
                );
            }
            continue;
        };
        number = number.wrapping_add(1);
        let (shared, alive) = (Arc::clone(&shared), alive.clone());
        tokio::spawn(async move {
            connection::serve(stream, remote, number, shared).await;
            drop((permit, alive));
        });
    }
}
