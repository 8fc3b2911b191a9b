//! A socket whose other side may not keep its answer waiting for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How often it is looked whether the other side takes what it is sent.
const LOOK: Duration = Duration::from_secs(10);
/// Bytes that it must take between two looks.
const LEAST: usize = 64 << 10;

/// Breaks a write that the other side takes slower than [`LEAST`] bytes in [`LOOK`].
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    every: Duration,
    look: Pin<Box<Sleep>>,
    /// A write has been waiting since the last look.
    waiting: bool,
    /// Bytes taken since then.
    moved: usize,
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> Watched {
        Watched::looking_every(LOOK, stream)
    }

    fn looking_every(every: Duration, stream: TcpStream) -> Watched {
        let look = Box::pin(sleep_until(Instant::now() + every));
        Watched { stream, every, look, waiting: false, moved: 0 }
    }

    /// Of a write that has ended in `result`.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
        length: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match &result {
            Poll::Ready(Ok(value)) => {
                self.moved += length(value);
                self.waiting = self.waiting && self.moved < LEAST;
                result
            }
            Poll::Ready(Err(_)) => result,
            Poll::Pending => {
                if !self.waiting {
                    (self.waiting, self.moved) = (true, 0);
                    let next = Instant::now() + self.every;
                    self.look.as_mut().reset(next);
                }
                if std::future::Future::poll(self.look.as_mut(), context).is_ready() {
                    let text = "the other side does not take its answer";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, result, |count| *count)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, result, |count| *count)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        // All of an answer is with the kernel: the time until the next one is nobody's delay.
        self.waiting = self.waiting && result.is_pending();
        self.watch(context, result, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    async fn pair() -> (Watched, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Watched::looking_every(EVERY, server), client)
    }

    #[tokio::test]
    async fn who_does_not_take_an_answer_is_cut_off() {
        let (mut server, _client) = pair().await;
        let error = server.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_time_between_two_answers_is_nobodys_delay() {
        let (mut server, mut client) = pair().await;
        std::future::poll_fn(|context| {
            // The last bytes of an answer had to wait a moment, and were taken.
            assert!(server.watch::<usize>(context, Poll::Pending, |count| *count).is_pending());
            assert!(server.watch(context, Poll::Ready(Ok(10)), |count| *count).is_ready());
            Pin::new(&mut server).poll_flush(context).map(Result::unwrap)
        })
        .await;
        tokio::time::sleep(2 * EVERY).await;
        let waits = |context: &mut Context<'_>| {
            Poll::Ready(server.watch::<usize>(context, Poll::Pending, |count| *count).is_pending())
        };
        assert!(std::future::poll_fn(waits).await, "the next answer is cut off at once");
        server.write_all(&[7; 1000]).await.unwrap();
        client.read_exact(&mut [0; 1000]).await.unwrap();
    }
}
