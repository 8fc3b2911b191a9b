//! The HTTP door of real servers, in the words of each system that it speaks for.

#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]
#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

mod causal;
mod http;
mod pairs;
#[allow(dead_code, reason = "this test needs a part of it")]
#[path = "../cluster/process.rs"]
mod process;
