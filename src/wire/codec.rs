//! Whole calls and answers to bytes and back.

use bytes::{Bytes, BytesMut};
use chord_gen as wire;
use thrift::protocol::{TInputProtocol, TMessageType};

use super::envelope::{
    Number, Text, Value, read_argument, read_result, with_input, with_output, write_exception,
    write_message,
};
use super::peer::{Asked, Form};
use super::reader::check_whole;
use super::{
    Answer, Call, CallError, Error, Format, Method, OriginalAnswer, OriginalCall, Protocol, Reply,
    Request, Sequence, Service, client, hot, old, original, peer,
};
use crate::model::{ClientRequest, ClientResponse, Content, Failure, PeerRequest, ServerId};

/// Understands a whole message that should be a call.
///
/// # Errors
/// It is none; the connection cannot go on.
pub fn decode_call(protocol: Protocol, message: Bytes) -> Result<Request, Error> {
    match hot::decode_call(&message) {
        Some(request) if protocol == Protocol::Binary => Ok(request),
        Some(_) | None => decode_any_call(protocol, message),
    }
}

pub(super) fn decode_any_call(protocol: Protocol, message: Bytes) -> Result<Request, Error> {
    check_whole(protocol, &message)?;
    with_input(protocol, &message, |input| {
        let head = input.read_message_begin()?;
        let oneway = match head.message_type {
            TMessageType::Call => false,
            TMessageType::OneWay => true,
            TMessageType::Reply | TMessageType::Exception => {
                return Err(Error::Unexpected { name: head.name });
            }
        };
        let method = Method::of(&head.name);
        let call = read_call(&method, input);
        Ok(Request { sequence: Sequence(head.sequence_number), method, oneway, call })
    })
}

/// The message is whole, so whatever is wrong with its fields concerns this call alone.
fn read_call(method: &Method, input: &mut dyn TInputProtocol) -> Result<Call, CallError> {
    fn argument<V: Value>(input: &mut dyn TInputProtocol) -> Result<Option<V>, CallError> {
        read_argument(input).map_err(|error| CallError::Application(error.to_string()))
    }
    fn required<V: Value>(input: &mut dyn TInputProtocol) -> Result<V, CallError> {
        let missing = || CallError::Application("the call's argument is missing".to_owned());
        argument(input)?.ok_or_else(missing)
    }
    fn of_peer(request: Result<PeerRequest, Error>) -> Result<Call, CallError> {
        request.map(Call::Peer).map_err(|error| CallError::Application(error.to_string()))
    }
    match method {
        Method::Put => client::put_in(required(input)?).map(Call::Client),
        Method::Remove => client::remove_in(required(input)?).map(Call::Client),
        Method::Prepare => client::prepare_in(required(input)?).map(Call::Client),
        Method::Get => client::get_in(required(input)?).map(Call::Client),
        Method::Scan => client::scan_in(required(input)?).map(Call::Client),
        Method::Status => {
            required::<wire::StatusRequest>(input)?;
            Ok(Call::Client(ClientRequest::Status))
        }
        Method::Inspect => client::inspect_in(required(input)?).map(Call::Client),
        Method::Topology => {
            required::<wire::TopologyRequest>(input)?;
            Ok(Call::Client(ClientRequest::Topology))
        }
        Method::Session => {
            let request: wire::SessionRequest = required(input)?;
            Ok(Call::Session { answers_as_ready: request.answers_as_ready.unwrap_or(false) })
        }
        Method::PeerHello => peer::hello_in(required(input)?)
            .map(Call::Hello)
            .map_err(|error| CallError::Application(error.to_string())),
        Method::PeerPing => {
            required::<wire::PeerPing>(input)?;
            Ok(Call::Peer(PeerRequest::Ping))
        }
        Method::PeerRead => of_peer(peer::read_in(required(input)?)),
        Method::PeerStore => of_peer(peer::store_in(required(input)?)),
        Method::PeerPage => of_peer(peer::page_in(required(input)?)),
        Method::PeerDigest => of_peer(peer::digest_in(required(input)?)),
        Method::PeerJoin => of_peer(peer::join_in(required(input)?)),
        Method::PeerClock => of_peer(Ok(peer::clock_in(&required(input)?))),
        Method::OriginalGet => {
            let request = argument(input).unwrap_or(None);
            old::get_in(request).map(Call::Original)
        }
        Method::OriginalPut => {
            let request = argument(input).unwrap_or(None);
            old::put_in(request).map(Call::Original)
        }
        Method::OriginalHello => Ok(Call::Original(OriginalCall::Hello)),
        Method::OriginalServerId => Ok(Call::Original(OriginalCall::ServerId)),
        Method::OriginalInfo => Ok(Call::Original(OriginalCall::Info)),
        Method::Unknown(name) => {
            Err(CallError::Application(format!("there is no method '{}'", name.escape_debug())))
        }
    }
}

/// Appends an encoded call, and returns its method.
///
/// # Errors
/// It is longer than a frame may be; `out` is as it was.
pub fn encode_call(
    format: Format,
    sequence: Sequence,
    call: &Call,
    out: &mut BytesMut,
) -> Result<Method, Error> {
    match hot::encode_call(format, sequence, call, out) {
        Some(method) => Ok(method),
        None => encode_any_call(format, sequence, call, out),
    }
}

pub(super) fn encode_any_call(
    format: Format,
    sequence: Sequence,
    call: &Call,
    out: &mut BytesMut,
) -> Result<Method, Error> {
    fn write<V: Value>(
        format: Format,
        sequence: Sequence,
        out: &mut BytesMut,
        method: Method,
        argument: Option<&V>,
    ) -> Result<Method, Error> {
        let field = argument.map(|argument| (1, argument));
        with_output(format, out, |output| {
            write_message(output, method.name(), TMessageType::Call, sequence, field)
        })?;
        Ok(method)
    }
    macro_rules! send {
        ($method:expr, $argument:expr) => {
            write(format, sequence, out, $method, Some(&$argument))
        };
    }
    match call {
        Call::Client(ClientRequest::Put(put)) => match &put.content {
            Content::Value(value) => send!(Method::Put, client::put_out(put, value)),
            Content::Tombstone => send!(Method::Remove, client::remove_out(put)),
        },
        Call::Client(ClientRequest::Prepare { key, level, timeout, after }) => {
            send!(Method::Prepare, client::prepare_out(key, *level, *timeout, *after))
        }
        Call::Client(ClientRequest::Get { key, level, timeout }) => {
            send!(Method::Get, client::get_out(key, *level, *timeout))
        }
        Call::Client(ClientRequest::Scan { from, to, limit, level, timeout, any_order }) => {
            let to = to.as_ref();
            let scan = client::scan_out(from, to, *limit, *level, *timeout, *any_order);
            send!(Method::Scan, scan)
        }
        Call::Client(ClientRequest::Status) => send!(Method::Status, wire::StatusRequest {}),
        Call::Client(ClientRequest::Inspect { source, from, limit }) => {
            send!(Method::Inspect, client::inspect_out(*source, from, *limit))
        }
        Call::Client(ClientRequest::Topology) => send!(Method::Topology, wire::TopologyRequest {}),
        Call::Session { answers_as_ready } => {
            let answers_as_ready = Some(*answers_as_ready);
            send!(Method::Session, wire::SessionRequest { answers_as_ready })
        }
        Call::Hello(hello) => send!(Method::PeerHello, peer::hello_out(hello)),
        Call::Peer(PeerRequest::Ping) => send!(Method::PeerPing, wire::PeerPing {}),
        Call::Peer(PeerRequest::Read(read)) => send!(Method::PeerRead, peer::read_out(read)),
        Call::Peer(PeerRequest::Store { key, epoch, cell }) => {
            send!(Method::PeerStore, peer::store_out(key, *epoch, cell))
        }
        Call::Peer(PeerRequest::Page { from, to, epoch, max_entries, max_bytes, with_values }) => {
            let to = to.as_ref();
            let page = peer::page_out(from, to, *epoch, *max_entries, *max_bytes, *with_values);
            send!(Method::PeerPage, page)
        }
        Call::Peer(PeerRequest::Digest { start, epoch }) => {
            send!(Method::PeerDigest, peer::digest_out(start, *epoch))
        }
        Call::Peer(PeerRequest::Clock { state }) => {
            send!(Method::PeerClock, peer::clock_out(*state))
        }
        Call::Peer(PeerRequest::Join(join)) => send!(Method::PeerJoin, peer::join_out(join)),
        Call::Original(OriginalCall::Get { number, level }) => {
            send!(Method::OriginalGet, old::request_out(*number, None, *level))
        }
        Call::Original(OriginalCall::Put { number, value, level }) => {
            send!(Method::OriginalPut, old::request_out(*number, Some(value), *level))
        }
        Call::Original(OriginalCall::Hello) => {
            write::<Number>(format, sequence, out, Method::OriginalHello, None)
        }
        Call::Original(OriginalCall::ServerId) => {
            write::<Number>(format, sequence, out, Method::OriginalServerId, None)
        }
        Call::Original(OriginalCall::Info) => {
            write::<Number>(format, sequence, out, Method::OriginalInfo, None)
        }
    }
}

/// Appends an encoded answer.
///
/// # Errors
/// It is longer than a frame may be, or no answer to that method; `out` is as it was.
pub fn encode_answer(
    format: Format,
    method: &Method,
    sequence: Sequence,
    answer: &Answer,
    out: &mut BytesMut,
) -> Result<(), Error> {
    if hot::encode_answer(format, method, sequence, answer, out) {
        return Ok(());
    }
    encode_any_answer(format, method, sequence, answer, out)
}

pub(super) fn encode_any_answer(
    format: Format,
    method: &Method,
    sequence: Sequence,
    answer: &Answer,
    out: &mut BytesMut,
) -> Result<(), Error> {
    macro_rules! send {
        ($id:expr, $value:expr) => {
            with_output(format, out, |output| {
                let field = Some(($id, &$value));
                write_message(output, method.name(), TMessageType::Reply, sequence, field)
            })
        };
    }
    let unexpected = || Err(Error::Unexpected { name: method.name().to_owned() });
    match (answer, method.service()) {
        (Answer::Application(text), _) => with_output(format, out, |output| {
            write_exception(output, method.name(), sequence, text)
        }),
        (Answer::Client { result: Err(failure), .. }, Some(Service::Chord)) => {
            send!(1, client::failure_out(failure))
        }
        // What cannot be understood as a call of the original's is answered in its own words.
        (Answer::Client { result: Err(failure), .. }, Some(Service::Original)) => {
            send!(1, exception(original::text(failure)))
        }
        (Answer::Client { server, result: Ok(response) }, Some(Service::Chord)) => {
            match (method, response) {
                (
                    Method::Put | Method::Remove,
                    ClientResponse::Put { version, overtaken, reached },
                ) => {
                    send!(0, client::put_answer(*version, *overtaken, *reached, *server))
                }
                (Method::Prepare, ClientResponse::Prepared { version }) => {
                    send!(0, wire::PrepareResponse { version: client::version_out(*version) })
                }
                (Method::Get, ClientResponse::Get { cell, reached }) => {
                    send!(0, client::get_answer(cell.as_ref(), *reached, *server))
                }
                (Method::Scan, ClientResponse::Scan { entries, next }) => {
                    send!(0, client::scan_answer(entries, next.as_ref(), *server))
                }
                (Method::Status, ClientResponse::Status(status)) => {
                    send!(0, client::status_answer(status))
                }
                (Method::Inspect, ClientResponse::Inspected { entries, next }) => {
                    send!(0, client::inspect_answer(entries, next.as_ref()))
                }
                (Method::Topology, ClientResponse::Topology(view)) => {
                    send!(0, client::topology_answer(view))
                }
                (_, _) => unexpected(),
            }
        }
        (Answer::Session { server }, Some(Service::Chord)) if *method == Method::Session => {
            send!(0, wire::SessionResponse { server: server.0.into() })
        }
        (Answer::Hello(Ok(hello)), Some(Service::Peer)) if *method == Method::PeerHello => {
            send!(0, peer::hello_out(hello))
        }
        (Answer::Hello(Err(refusal)), Some(Service::Peer)) => {
            send!(1, peer::hello_refusal_out(refusal))
        }
        (Answer::Peer(Err(message)), Some(Service::Peer)) => {
            send!(1, wire::PeerRefusal { message: message.clone(), challenge: None })
        }
        (Answer::Peer(Ok(reply)), Some(Service::Peer)) => {
            match asked(method).and_then(|asked| peer::reply_out(asked, reply)) {
                Some(Form::Pong(form)) => send!(0, form),
                Some(Form::Read(form)) => send!(0, form),
                Some(Form::Store(form)) => send!(0, form),
                Some(Form::Page(form)) => send!(0, form),
                Some(Form::Digest(form)) => send!(0, form),
                Some(Form::Join(form)) => send!(0, form),
                Some(Form::Clock(form)) => send!(0, form),
                None => unexpected(),
            }
        }
        (Answer::Original(Err(message)), Some(Service::Original)) => send!(1, exception(message)),
        (Answer::Original(Ok(answer)), Some(Service::Original)) => match (method, answer) {
            (Method::OriginalHello | Method::OriginalInfo, OriginalAnswer::Text(text)) => {
                send!(0, Text(text.clone()))
            }
            (Method::OriginalServerId, OriginalAnswer::Number(number)) => send!(0, Number(*number)),
            (Method::OriginalGet | Method::OriginalPut, answer) => {
                match old::response_out(answer) {
                    Some(response) => send!(0, response),
                    None => unexpected(),
                }
            }
            (_, _) => unexpected(),
        },
        (_, _) => unexpected(),
    }
}

fn exception(message: &str) -> wire::SystemException {
    wire::SystemException { message: Some(message.to_owned()) }
}

fn asked(method: &Method) -> Option<Asked> {
    match method {
        Method::PeerPing => Some(Asked::Ping),
        Method::PeerRead => Some(Asked::Read),
        Method::PeerStore => Some(Asked::Store),
        Method::PeerPage => Some(Asked::Page),
        Method::PeerDigest => Some(Asked::Digest),
        Method::PeerJoin => Some(Asked::Join),
        Method::PeerClock => Some(Asked::Clock),
        _ => None,
    }
}

/// Understands a whole message that should be an answer.
///
/// # Errors
/// It is none; the connection cannot go on.
pub fn decode_reply(protocol: Protocol, message: Bytes) -> Result<(Sequence, Reply), Error> {
    match hot::decode_reply(&message) {
        Some(reply) if protocol == Protocol::Binary => Ok(reply),
        Some(_) | None => decode_any_reply(protocol, message),
    }
}

pub(super) fn decode_any_reply(
    protocol: Protocol,
    message: Bytes,
) -> Result<(Sequence, Reply), Error> {
    check_whole(protocol, &message)?;
    with_input(protocol, &message, |input| {
        let head = input.read_message_begin()?;
        let sequence = Sequence(head.sequence_number);
        let reply = match head.message_type {
            TMessageType::Reply => read_reply(&head.name, input)?,
            TMessageType::Exception => {
                let error = thrift::Error::read_application_error_from_in_protocol(input)?;
                Reply::Application(error.message)
            }
            TMessageType::Call | TMessageType::OneWay => {
                return Err(Error::Unexpected { name: head.name });
            }
        };
        Ok((sequence, reply))
    })
}

fn read_reply(name: &str, input: &mut dyn TInputProtocol) -> Result<Reply, Error> {
    type Found<V> = Result<V, wire::ChordError>;
    type OfPeer<V> = Result<V, wire::PeerRefusal>;
    type Old<V> = Result<V, wire::SystemException>;
    fn of_client<V>(
        found: Found<V>,
        server: impl FnOnce(&V) -> Option<i32>,
        response: impl FnOnce(V) -> Result<ClientResponse, Error>,
    ) -> Result<Reply, Error> {
        Ok(match found {
            Ok(answer) => {
                let number = server(&answer).and_then(|number| u16::try_from(number).ok());
                Reply::Client { server: number.map(ServerId), result: Ok(response(answer)?) }
            }
            Err(error) => Reply::Client { server: None, result: Err(client::failure_in(error)) },
        })
    }
    fn of_peer<V>(found: OfPeer<V>, form: impl FnOnce(V) -> Form) -> Result<Reply, Error> {
        Ok(Reply::Peer(match found {
            Ok(answer) => Ok(peer::reply_in(form(answer))?),
            Err(refusal) => Err(refusal.message),
        }))
    }
    fn of_old<V>(
        found: Old<V>,
        answer: impl FnOnce(V) -> Option<OriginalAnswer>,
    ) -> Result<Reply, Error> {
        Ok(Reply::Original(match found {
            Ok(value) => {
                Ok(answer(value).ok_or(Error::Malformed { what: "an original's answer" })?)
            }
            Err(exception) => Err(exception.message.unwrap_or_default()),
        }))
    }
    let method = Method::of(name);
    match method {
        Method::Put | Method::Remove => {
            let found: Found<wire::PutResponse> = read_result(input)?;
            of_client(found, |answer| answer.server, |answer| client::put_reply(&answer))
        }
        Method::Prepare => {
            let found: Found<wire::PrepareResponse> = read_result(input)?;
            of_client(
                found,
                |_| None,
                |answer| {
                    Ok(ClientResponse::Prepared { version: client::version_in(&answer.version)? })
                },
            )
        }
        Method::Get => {
            let found: Found<wire::GetResponse> = read_result(input)?;
            of_client(found, |answer| answer.server, client::get_reply)
        }
        Method::Scan => {
            let found: Found<wire::ScanResponse> = read_result(input)?;
            of_client(found, |answer| answer.server, client::scan_reply)
        }
        Method::Status => {
            let found: Found<wire::StatusResponse> = read_result(input)?;
            of_client(found, |answer| Some(answer.server), client::status_reply)
        }
        Method::Inspect => of_client(read_result(input)?, |_| None, client::inspect_reply),
        Method::Topology => of_client(read_result(input)?, |_| None, client::topology_reply),
        Method::Session => {
            let found: Found<wire::SessionResponse> = read_result(input)?;
            match found {
                Ok(answer) => Ok(Reply::Session { server: client::server_in(answer.server)? }),
                Err(error) => {
                    Ok(Reply::Client { server: None, result: Err(client::failure_in(error)) })
                }
            }
        }
        Method::PeerHello => {
            let found: OfPeer<wire::PeerHello> = read_result(input)?;
            Ok(Reply::Hello(match found {
                Ok(hello) => Ok(peer::hello_in(hello)?),
                Err(refusal) => Err(peer::hello_refusal_in(refusal)?),
            }))
        }
        Method::PeerPing => of_peer(read_result(input)?, Form::Pong),
        Method::PeerRead => of_peer(read_result(input)?, Form::Read),
        Method::PeerStore => of_peer(read_result(input)?, Form::Store),
        Method::PeerPage => of_peer(read_result(input)?, Form::Page),
        Method::PeerDigest => of_peer(read_result(input)?, Form::Digest),
        Method::PeerJoin => of_peer(read_result(input)?, Form::Join),
        Method::PeerClock => of_peer(read_result(input)?, Form::Clock),
        Method::OriginalGet | Method::OriginalPut => of_old(read_result(input)?, old::response_in),
        Method::OriginalHello | Method::OriginalInfo => {
            of_old(read_result::<Text, _>(input)?, |text| Some(OriginalAnswer::Text(text.0)))
        }
        Method::OriginalServerId => of_old(read_result::<Number, _>(input)?, |number| {
            Some(OriginalAnswer::Number(number.0))
        }),
        Method::Unknown(name) => Err(Error::Unexpected { name }),
    }
}

/// What is answered to a call that cannot be carried out.
pub fn refuse(method: &Method, server: ServerId, error: &CallError) -> Answer {
    match (error, method.service()) {
        (CallError::Invalid(invalid), Some(Service::Chord)) => {
            Answer::Client { server, result: Err(Failure::Invalid(invalid.clone())) }
        }
        (_, Some(Service::Original)) => Answer::Original(Err(original::BAD_REQUEST.to_owned())),
        (CallError::Invalid(invalid), _) => Answer::Application(invalid.to_string()),
        (CallError::Application(text), _) => Answer::Application(text.clone()),
    }
}
