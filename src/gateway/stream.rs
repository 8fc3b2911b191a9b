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
    look: Pin<Box<Sleep>>,
    /// A write has been waiting since the last look.
    waiting: bool,
    /// Bytes taken since then.
    moved: usize,
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> Watched {
        let look = Box::pin(sleep_until(Instant::now() + LOOK));
        Watched { stream, look, waiting: false, moved: 0 }
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
                    self.look.as_mut().reset(Instant::now() + LOOK);
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
        self.watch(context, result, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
