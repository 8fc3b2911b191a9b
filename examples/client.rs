//! The client library in ten lines; docs/clients.md shows this very text.

use std::time::Duration;

use chord::client::{Client, Options, Routing, Safety};
use chord::model::{ClientRequest, Content, Key, Level, PreparedPut};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Options {
        servers: vec!["127.0.0.1:9000".into(), "127.0.0.1:9001".into()],
        timeout: Duration::from_secs(5),
        safety: Safety::Ticket,
        routing: Routing::Replica { prefer: None },
    });
    let key = Key::new("137")?;
    client.write(PreparedPut::new(key.clone(), Content::Value("v".into()), Level::Quorum)).await?;
    let get = ClientRequest::Get { key, level: Level::Quorum, timeout: None };
    println!("{:?}", client.read(get).await?.response);
    Ok(())
}
