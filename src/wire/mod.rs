//! Thrift over bytes: messages of the model to bytes and back, in memory.
//!
//! `chord.thrift` is the public contract. It only grows: fields are added with new numbers and are optional, nothing
//! is renumbered or removed, every call takes one struct and throws at most one exception, and there are no unions
//! (the generated reader panics on a member it does not know). `gen/` holds what the Thrift compiler makes of it;
//! this module alone names those types, and turns them into [`crate::model`]'s and back. Numbers out of their bounds
//! are refused here, never cut off.
//!
//! Any of four formats may come in on one port, framed or unframed, binary or compact; [`detect()`] tells them apart by
//! the first bytes. [`MessageReader`] cuts a connection's bytes into messages, and [`decode_call`] understands one.
//! What cannot be carried out but is well-formed becomes a [`CallError`], which is answered; after an [`Error`] the
//! connection cannot go on.
//!
//! # Bounds
//!
//! A message has at most [`MAX_FRAME_LENGTH`] bytes, 32 levels of nesting and 65,536 elements a container. A
//! message is walked over by a scanner before the generated code decodes it, and decoded under limits of its own length, so no
//! claimed size is ever taken on trust; what is read by hand is read from where it is.
//!
//! # What is left out
//!
//! Who sends, who receives, sockets. Everything but the commonest calls (`hot.rs`) goes through the generated types, which
//! copies values once on the way out.

mod client;
mod codec;
mod detect;
mod envelope;
mod error;
mod hot;
mod message;
mod old;
mod peer;
mod reader;
#[cfg(test)]
mod tests;

pub use codec::{decode_call, decode_reply, encode_answer, encode_call, refuse};
pub use detect::{Detection, Foreign, detect};
pub use error::Error;
pub use message::{
    Answer, Call, CallError, FailureCode, Format, Framing, MAX_FRAME_LENGTH, Method,
    OriginalAnswer, OriginalCall, Protocol, RemoteFailure, Reply, Request, Sequence, Service,
    original,
};
pub use reader::{MessageReader, make_room};
