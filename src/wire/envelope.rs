//! What is around every call and answer: name, type, number, and a struct with one field.
//!
//! The generated code keeps this part to itself, so it is written here, once for all methods.

use bytes::{BufMut, BytesMut};
use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TCompactInputProtocol, TCompactOutputProtocol,
    TFieldIdentifier, TInputProtocol, TMessageIdentifier, TMessageType, TOutputProtocol,
    TSerializable, TStructIdentifier, TType,
};
use thrift::{ApplicationError, ApplicationErrorKind, TConfiguration};

use super::reader::MAX_ELEMENTS;
use super::{Error, Format, Framing, MAX_FRAME_LENGTH, Protocol, Sequence};

/// A value that a call takes, returns or throws.
pub(super) trait Value: Sized {
    const TYPE: TType;
    fn read(input: &mut dyn TInputProtocol) -> thrift::Result<Self>;
    fn write(&self, output: &mut dyn TOutputProtocol) -> thrift::Result<()>;
}

impl<T: TSerializable> Value for T {
    const TYPE: TType = TType::Struct;

    fn read(input: &mut dyn TInputProtocol) -> thrift::Result<T> {
        T::read_from_in_protocol(input)
    }

    fn write(&self, output: &mut dyn TOutputProtocol) -> thrift::Result<()> {
        self.write_to_out_protocol(output)
    }
}

/// A string that a call returns. A type of its own, since strings are no structs.
pub(super) struct Text(pub(super) String);

impl Value for Text {
    const TYPE: TType = TType::String;

    fn read(input: &mut dyn TInputProtocol) -> thrift::Result<Text> {
        input.read_string().map(Text)
    }

    fn write(&self, output: &mut dyn TOutputProtocol) -> thrift::Result<()> {
        output.write_string(&self.0)
    }
}

/// A number that a call returns.
pub(super) struct Number(pub(super) i32);

impl Value for Number {
    const TYPE: TType = TType::I32;

    fn read(input: &mut dyn TInputProtocol) -> thrift::Result<Number> {
        input.read_i32().map(Number)
    }

    fn write(&self, output: &mut dyn TOutputProtocol) -> thrift::Result<()> {
        output.write_i32(self.0)
    }
}

/// Reads a whole message: what it says is handed to `read` with a protocol that is bounded by its length.
pub(super) fn with_input<T>(
    protocol: Protocol,
    message: &[u8],
    read: impl FnOnce(&mut dyn TInputProtocol) -> Result<T, Error>,
) -> Result<T, Error> {
    let most = Some(message.len().max(1));
    let limits = TConfiguration::builder()
        .max_message_size(most)
        .max_frame_size(most)
        .max_string_size(most)
        .max_container_size(Some(MAX_ELEMENTS as usize))
        .max_recursion_depth(Some(64))
        .build()?;
    match protocol {
        Protocol::Binary => read(&mut TBinaryInputProtocol::with_config(message, true, limits)),
        Protocol::Compact => read(&mut TCompactInputProtocol::with_config(message, limits)),
    }
}

/// Appends a whole message, framed if that is the format; on an error `out` is as it was.
pub(super) fn with_output(
    format: Format,
    out: &mut BytesMut,
    write: impl FnOnce(&mut dyn TOutputProtocol) -> thrift::Result<()>,
) -> Result<(), Error> {
    let start = out.len();
    let prefix = match format.framing {
        Framing::Framed => 4,
        Framing::Unframed => 0,
    };
    out.put_bytes(0, prefix);
    let written = match format.protocol {
        Protocol::Binary => write(&mut TBinaryOutputProtocol::new((&mut *out).writer(), true)),
        Protocol::Compact => write(&mut TCompactOutputProtocol::new((&mut *out).writer())),
    };
    let length = out.len() - start - prefix;
    if let Err(error) = written {
        out.truncate(start);
        return Err(error.into());
    }
    if length > MAX_FRAME_LENGTH {
        out.truncate(start);
        return Err(Error::FrameTooLong { length: length as u64 });
    }
    if prefix > 0 {
        out[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
    }
    Ok(())
}

/// Writes a message whose struct has at most one field.
pub(super) fn write_message<V: Value>(
    output: &mut dyn TOutputProtocol,
    name: &str,
    kind: TMessageType,
    sequence: Sequence,
    field: Option<(i16, &V)>,
) -> thrift::Result<()> {
    output.write_message_begin(&TMessageIdentifier::new(name, kind, sequence.0))?;
    output.write_struct_begin(&TStructIdentifier::new("message"))?;
    if let Some((id, value)) = field {
        output.write_field_begin(&TFieldIdentifier::new("field", V::TYPE, id))?;
        value.write(output)?;
        output.write_field_end()?;
    }
    output.write_field_stop()?;
    output.write_struct_end()?;
    output.write_message_end()
}

/// Writes what Thrift itself can say.
pub(super) fn write_exception(
    output: &mut dyn TOutputProtocol,
    name: &str,
    sequence: Sequence,
    text: &str,
) -> thrift::Result<()> {
    output.write_message_begin(&TMessageIdentifier::new(
        name,
        TMessageType::Exception,
        sequence.0,
    ))?;
    let kind = ApplicationErrorKind::UnknownMethod;
    let error = ApplicationError { kind, message: text.to_owned() };
    thrift::Error::write_application_error_to_out_protocol(&error, output)?;
    output.write_message_end()
}

/// Reads a message's only argument; `None` if it has none.
pub(super) fn read_argument<V: Value>(input: &mut dyn TInputProtocol) -> thrift::Result<Option<V>> {
    let mut argument = None;
    input.read_struct_begin()?;
    loop {
        let field = input.read_field_begin()?;
        match (field.field_type, field.id) {
            (TType::Stop, _) => break,
            (kind, Some(1)) if kind == V::TYPE => argument = Some(V::read(input)?),
            (kind, _) => input.skip(kind)?,
        }
        input.read_field_end()?;
    }
    input.read_struct_end()?;
    Ok(argument)
}

/// Reads a reply's struct: what it returns, or what it throws.
pub(super) fn read_result<V: Value, E: Value>(
    input: &mut dyn TInputProtocol,
) -> Result<Result<V, E>, Error> {
    let mut result = None;
    input.read_struct_begin()?;
    loop {
        let field = input.read_field_begin()?;
        match (field.field_type, field.id) {
            (TType::Stop, _) => break,
            (kind, Some(0)) if kind == V::TYPE => result = Some(Ok(V::read(input)?)),
            (kind, Some(1)) if kind == E::TYPE => result = Some(Err(E::read(input)?)),
            (kind, _) => input.skip(kind)?,
        }
        input.read_field_end()?;
    }
    input.read_struct_end()?;
    result.ok_or(Error::Malformed { what: "an answer with neither a result nor an exception" })
}
