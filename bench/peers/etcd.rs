//! etcd, asked over gRPC: HTTP/2 by the library that Rust's gRPC is built on, and the few fields of the messages by hand.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chord::bench::target::{Answer, Call, Connection, Found, Order, Target};
use h2::client::{ResponseFuture, SendRequest};
use tokio::net::TcpStream;

/// One member.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    pub(crate) address: String,
    /// Reads may be answered by that member alone, out of date or not.
    pub(crate) local_reads: bool,
}

pub(crate) struct EtcdConnection {
    sender: SendRequest<Bytes>,
    address: String,
    local_reads: bool,
    asked: std::collections::VecDeque<(bool, ResponseFuture)>,
}

impl Target for Etcd {
    type Connection = EtcdConnection;

    async fn connect(&self, _: usize) -> Result<EtcdConnection, String> {
        let failed = |error: &dyn std::fmt::Display| format!("etcd at {}: {error}", self.address);
        let stream = TcpStream::connect(&self.address).await.map_err(|e| failed(&e))?;
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        let (sender, connection) = h2::client::handshake(stream).await.map_err(|e| failed(&e))?;
        // It ends with its sender.
        tokio::spawn(async move { connection.await.ok() });
        let sender = sender.ready().await.map_err(|e| failed(&e))?;
        let asked = std::collections::VecDeque::new();
        Ok(EtcdConnection {
            sender,
            address: self.address.clone(),
            local_reads: self.local_reads,
            asked,
        })
    }
}

impl EtcdConnection {
    fn call(&mut self, method: &str, message: &[u8]) -> Result<ResponseFuture, String> {
        let request = http::Request::post(format!("http://{}{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let (response, mut body) =
            self.sender.send_request(request, false).map_err(|error| error.to_string())?;
        let mut frame = BytesMut::with_capacity(5 + message.len());
        frame.put_u8(0);
        frame.put_u32(message.len() as u32);
        frame.put_slice(message);
        body.send_data(frame.freeze(), true).map_err(|error| error.to_string())?;
        Ok(response)
    }
}

/// The message of a reply, or what gRPC says instead.
async fn reply(response: ResponseFuture) -> Result<Result<Bytes, String>, String> {
    let response = response.await.map_err(|error| error.to_string())?;
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|error| error.to_string())?;
        body.flow_control().release_capacity(piece.len()).map_err(|error| error.to_string())?;
        bytes.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await.map_err(|error| error.to_string())?.unwrap_or_default();
    let status = trailers.get("grpc-status").map(|status| status.as_bytes().to_vec());
    if status.as_deref() != Some(b"0") || bytes.len() < 5 {
        return Ok(Err(format!("{trailers:?}")));
    }
    bytes.advance(5);
    Ok(Ok(bytes.freeze()))
}

// ── Protocol buffers, as far as they are needed ─────────────────────────────────────────────────────────

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field of a message: a number, or bytes.
enum Field {
    Number(u64),
    Bytes(Bytes),
}

/// The fields of a message; what makes no sense ends them.
fn fields(mut message: Bytes) -> Vec<(u64, Field)> {
    fn varint(message: &mut Bytes) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            if message.is_empty() {
                return None;
            }
            let byte = message.get_u8();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
    let mut found = Vec::new();
    while let Some(tag) = varint(&mut message) {
        let field = match tag & 7 {
            0 => varint(&mut message).map(Field::Number),
            2 => varint(&mut message)
                .filter(|length| *length <= message.len() as u64)
                .map(|length| Field::Bytes(message.split_to(length as usize))),
            _ => None,
        };
        match field {
            Some(field) => found.push((tag >> 3, field)),
            None => break,
        }
    }
    found
}

fn number(fields: &[(u64, Field)], id: u64) -> u64 {
    fields
        .iter()
        .find_map(|(field, value)| match value {
            Field::Number(number) if *field == id => Some(*number),
            _ => None,
        })
        .unwrap_or(0)
}

fn part(fields: &[(u64, Field)], id: u64) -> Option<Bytes> {
    fields.iter().find_map(|(field, value)| match value {
        Field::Bytes(bytes) if *field == id => Some(bytes.clone()),
        _ => None,
    })
}

impl Connection for EtcdConnection {
    fn send(&mut self, call: &Call<'_>) -> Result<(), String> {
        let mut message = Vec::new();
        let (is_put, response) = match call {
            Call::Put { key, value } => {
                put_bytes(&mut message, 1, key);
                put_bytes(&mut message, 2, value);
                (true, self.call("/etcdserverpb.KV/Put", &message)?)
            }
            Call::Get { key } => {
                put_bytes(&mut message, 1, key);
                if self.local_reads {
                    message.extend_from_slice(&[7 << 3, 1]);
                }
                (false, self.call("/etcdserverpb.KV/Range", &message)?)
            }
            Call::Scan { .. } => return Err("scans are not compared".to_owned()),
        };
        self.asked.push_back((is_put, response));
        Ok(())
    }

    async fn receive(&mut self) -> Result<Answer, String> {
        let (is_put, response) = self.asked.pop_front().ok_or("nothing was asked")?;
        let message = match reply(response).await? {
            Ok(message) => message,
            Err(why) => return Ok(Answer::Failed(why)),
        };
        let message = fields(message);
        let order = |revision: u64| Some(Order(revision.into()));
        if is_put {
            let header = part(&message, 1).map(fields).unwrap_or_default();
            return Ok(Answer::Put(order(number(&header, 3))));
        }
        let Some(pair) = part(&message, 2).map(fields) else { return Ok(Answer::Got(None)) };
        let value = part(&pair, 5).unwrap_or_default();
        Ok(Answer::Got(Some(Found { value, order: order(number(&pair, 3)) })))
    }
}

/// Whether this member leads.
pub(crate) async fn leads(address: &str) -> Result<bool, String> {
    let target = Etcd { address: address.to_owned(), local_reads: false };
    let mut connection = target.connect(0).await?;
    let response = connection.call("/etcdserverpb.Maintenance/Status", &[])?;
    let status = fields(reply(response).await??);
    let header = part(&status, 1).map(fields).unwrap_or_default();
    let (member, leader) = (number(&header, 2), number(&status, 4));
    Ok(leader != 0 && member == leader)
}
