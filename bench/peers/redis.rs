//! Redis: a primary and two replicas, asked in its own protocol. A put is a SET and a WAIT for one replica, sent together.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use chord::bench::target::{Answer, Call, Connection, Found, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The primary.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    pub(crate) address: String,
    /// Replicas that must have a put before it counts.
    pub(crate) wait: usize,
}

#[derive(Debug)]
pub(crate) struct RedisConnection {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    wait: usize,
    /// Of each call that is not answered yet: whether it is a put.
    puts: VecDeque<bool>,
}

/// One reply.
#[derive(Debug)]
enum Reply {
    Status,
    Number(i64),
    Bytes(Option<Bytes>),
    Error(String),
}

impl Reply {
    fn say(&self) -> String {
        match self {
            Reply::Status => "ok".to_owned(),
            Reply::Number(number) => number.to_string(),
            Reply::Bytes(bytes) => format!("{bytes:?}"),
            Reply::Error(why) => why.clone(),
        }
    }
}

impl Target for Redis {
    type Connection = RedisConnection;

    async fn connect(&self, _: usize) -> Result<RedisConnection, String> {
        let failed = |error: std::io::Error| format!("redis at {}: {error}", self.address);
        let stream = TcpStream::connect(&self.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (input, output, puts) = (BytesMut::new(), Vec::new(), VecDeque::new());
        Ok(RedisConnection { stream, input, output, wait: self.wait, puts })
    }
}

impl RedisConnection {
    fn command(&mut self, parts: &[&[u8]]) {
        self.output.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
        for part in parts {
            self.output.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            self.output.extend_from_slice(part);
            self.output.extend_from_slice(b"\r\n");
        }
    }

    async fn reply(&mut self) -> Result<Reply, String> {
        loop {
            if let Some(reply) = parse(&mut self.input)? {
                return Ok(reply);
            }
            self.input.reserve(16 * 1024);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err("redis has closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// The reply that `input` begins with, taken off it, if it is there as a whole.
fn parse(input: &mut BytesMut) -> Result<Option<Reply>, String> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&input[..end]).into_owned();
    let (kind, rest) = line.split_at(1);
    let reply = match kind {
        "+" => Reply::Status,
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Number(rest.parse().map_err(|_| line.clone())?),
        "$" => match rest.parse::<i64>().map_err(|_| line.clone())? {
            length @ 0.. => {
                let length = length as usize;
                if input.len() < end + 2 + length + 2 {
                    return Ok(None);
                }
                input.advance(end + 2);
                let bytes = input.split_to(length).freeze();
                input.advance(2);
                return Ok(Some(Reply::Bytes(Some(bytes))));
            }
            _ => Reply::Bytes(None),
        },
        _ => return Err(format!("redis says what makes no sense: {line}")),
    };
    input.advance(end + 2);
    Ok(Some(reply))
}

impl Connection for RedisConnection {
    fn send(&mut self, call: &Call<'_>) -> Result<(), String> {
        match call {
            Call::Get { key } => self.command(&[b"GET", key]),
            Call::Put { key, value } => {
                self.command(&[b"SET", key, value]);
                let wait = self.wait.to_string();
                self.command(&[b"WAIT", wait.as_bytes(), b"0"]);
            }
            Call::Scan { .. } => return Err("redis has no ordered scans".to_owned()),
        }
        self.puts.push_back(matches!(call, Call::Put { .. }));
        Ok(())
    }

    async fn receive(&mut self) -> Result<Answer, String> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await.map_err(|error| error.to_string())?;
            self.output.clear();
        }
        let is_put = self.puts.pop_front().ok_or("nothing was asked")?;
        let first = self.reply().await?;
        if !is_put {
            return Ok(match first {
                Reply::Bytes(value) => Answer::Got(value.map(|value| Found { value, order: None })),
                other => Answer::Failed(other.say()),
            });
        }
        match (first, self.reply().await?) {
            (Reply::Status, Reply::Number(replicas)) if replicas >= self.wait as i64 => {
                Ok(Answer::Put(None))
            }
            (first, second) => Ok(Answer::Failed(format!("{}, {}", first.say(), second.say()))),
        }
    }
}
