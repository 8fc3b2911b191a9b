//! The real programs, real sockets, `kill -9`. Each test names the statements it shows (docs/testing.md).

#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]
#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

mod clocks;
mod doors;
mod driver;
mod full;
mod hostile;
mod levels;
mod load;
mod named;
#[allow(dead_code, reason = "other test crates need the rest of it")]
mod process;
mod recovery;
mod scripts;
mod secret;
mod shapes;
mod story;
mod transfer;
