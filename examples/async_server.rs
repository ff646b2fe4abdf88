//! An asynchronous server. A client sends a line of text and receives its continuation, token by token, while it is
//! generated.
//!
//! One thread owns the engine, and the server's tasks only wait for streams, so that more clients need no more
//! threads. A client that disconnects cancels its own answer. The protocol is minimal: one line in, one line out.

use fanfold::device::{Device, host::HostDevice};
use fanfold::generate::{GenerateOptions, Service};
use fanfold::plan::{Strategy, plan};
use fanfold::text::Tokenizer;
use fanfold::{Engine, EngineOptions, Model, Sampler, Sampling};
use futures_util::StreamExt;
use std::{error::Error, sync::Arc};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn open() -> fanfold::Result<(Engine, Tokenizer)> {
    let model = Arc::new(Model::demo()?);
    let file = model.file("tokenizer.json")?.unwrap_or_default();
    let tokenizer = Tokenizer::from_bytes(model.file_path("tokenizer.json"), &file)?;
    let plan = plan(model.graph(), Strategy::Tensor, &[2.0, 1.0])?;
    let devices = (0..2).map(|_| Box::new(HostDevice::new()) as Box<dyn Device>).collect();
    let options = EngineOptions::default().context(128);
    Ok((Engine::open(model, &plan, devices, options, Arc::new(|_bytes| ()))?, tokenizer))
}

/// Serves one client.
async fn answer(mut socket: TcpStream, service: Arc<Service>, tokenizer: Tokenizer) -> Outcome {
    let (reader, mut writer) = socket.split();
    let Some(line) = BufReader::new(reader).lines().next_line().await? else { return Ok(()) };
    let ids = tokenizer.encode(&line, true)?;
    let mut text = tokenizer.stream_after(&ids, true)?;
    let mut tokens = service.generate(ids, Sampler::new(Sampling::greedy())?, GenerateOptions::new(24))?;
    while let Some(token) = tokens.next().await {
        // A write fails if the client has disconnected. The stream is then dropped, which cancels the answer.
        let piece = text.push(token?)?.unwrap_or_default();
        writer.write_all(piece.replace('\n', " ").as_bytes()).await?;
    }
    writer.write_all(b"\n").await?;
    Ok(())
}

async fn client(address: std::net::SocketAddr, prompt: &str) -> Result<String, std::io::Error> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(format!("{prompt}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).await?;
    Ok(line)
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Outcome {
    let (engine, tokenizer) = open()?;
    let service = Arc::new(Service::start(engine, 16)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (service, tokenizer) = (service.clone(), tokenizer.clone());
            tokio::spawn(
                async move { answer(socket, service, tokenizer).await.inspect_err(|error| eprintln!("{error}")) },
            );
        }
    });
    // Three clients at once. Two of them send the same line and so receive the same answer.
    let prompts = ["ROMEO: But soft,", "KING: My lord,", "ROMEO: But soft,"];
    let lines = futures_util::future::join_all(prompts.map(|prompt| client(address, prompt))).await;
    let lines = lines.into_iter().collect::<Result<Vec<_>, _>>()?;
    prompts.iter().zip(&lines).for_each(|(prompt, line)| println!("{prompt}{}", line.trim_end()));
    assert!(lines.iter().all(|line| line.len() > 8 && line.ends_with('\n')) && lines[0] == lines[2]);
    Ok(())
}
