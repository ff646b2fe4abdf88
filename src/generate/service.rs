//! An engine that serves many callers, asynchronous ones too: one thread owns it, requests wait in a queue, and each caller
//! reads its tokens from a stream.
//!
//! It deliberately knows no runtime: the stream is `futures_core`'s, and no thread is taken per request or token. Read
//! `examples/async_server.rs` for a server on tokio.

use super::cancel::Cancel;
use super::engine::Engine;
use super::error::GenerateError;
use super::held::Held;
use super::tokens::GenerateOptions;
use crate::session::SessionError;
use crate::text::{FinishReason, Sampler};
use crossbeam::channel::{Sender, TrySendError, bounded};
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

/// What the engine's thread tells a stream.
enum Event {
    Token(u32),
    Finished(FinishReason),
    Failed(GenerateError),
}

/// One caller's request.
struct Request {
    prompt: Vec<u32>,
    sampler: Sampler,
    options: GenerateOptions,
    events: UnboundedSender<Event>,
}

/// An engine on a thread of its own, which answers one request after the other.
///
/// What a prompt has in common with the text before it stays in the KV cache and is not fed again. Dropping the service
/// cancels what is under way and ends its thread.
pub struct Service {
    requests: Option<Sender<Request>>,
    /// Cancels whatever is under way when the service is dropped.
    closing: Cancel,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Gives `engine` a thread; at most `queue` requests wait while one is answered.
    ///
    /// Errors when the system gives no thread.
    pub fn start(mut engine: Engine, queue: usize) -> Result<Service, GenerateError> {
        let (requests, inbox) = bounded::<Request>(queue);
        let closing = Cancel::default();
        let closed = closing.clone();
        engine.reset();
        let work = move || {
            let mut held = Held::default();
            for request in inbox {
                if closed.is_cancelled() {
                    return;
                }
                let events = request.events.clone();
                let last = match answer(&mut engine, &mut held, request, &closed) {
                    Ok(reason) => Event::Finished(reason),
                    Err(error) => Event::Failed(error),
                };
                // A caller that is gone wants no last word.
                let _ = events.unbounded_send(last);
            }
        };
        let thread = std::thread::Builder::new().name("engine".to_string()).spawn(work);
        let thread = thread.map_err(|error| GenerateError::Thread { reason: error.to_string() })?;
        Ok(Service { requests: Some(requests), closing, thread: Some(thread) })
    }

    /// Asks for the continuation of `prompt`, from the beginning of a text; returns at once.
    ///
    /// Errors with [`GenerateError::Busy`] when as many requests wait as may. What is wrong with the prompt is told by the
    /// stream.
    pub fn generate(
        &self,
        prompt: Vec<u32>,
        sampler: Sampler,
        options: GenerateOptions,
    ) -> Result<TokenStream, GenerateError> {
        let (events, receiver) = unbounded();
        let cancel = options.cancel.clone();
        let request = Request { prompt, sampler, options, events };
        let Some(requests) = &self.requests else { return Err(SessionError::Ended.into()) };
        match requests.try_send(request) {
            Ok(()) => Ok(TokenStream { events: receiver, cancel, finished: None, over: false }),
            Err(TrySendError::Full(_)) => Err(GenerateError::Busy { waiting: requests.len() }),
            Err(TrySendError::Disconnected(_)) => Err(SessionError::Ended.into()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.closing.cancel();
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic was told to the streams: they ended without a last word.
            let _ = thread.join();
        }
    }
}

/// Answers one request; returns why the answer ended.
fn answer(
    engine: &mut Engine,
    held: &mut Held,
    request: Request,
    closed: &Cancel,
) -> Result<FinishReason, GenerateError> {
    let Request { prompt, mut sampler, options, events } = request;
    // A caller that is gone may have been gone before its turn came.
    if options.cancel.is_cancelled() || events.is_closed() {
        return Ok(FinishReason::Cancelled);
    }
    let kept = held.rewind(engine, &prompt);
    sampler.accept(&prompt[..kept]);
    let mut yielded = Vec::new();
    let outcome = (|| {
        let mut tokens = engine.generate(&prompt[kept..], sampler, &options)?;
        while let Some(token) = tokens.next().transpose()? {
            yielded.push(token);
            if events.unbounded_send(Event::Token(token)).is_err() || closed.is_cancelled() {
                return Ok(FinishReason::Cancelled);
            }
        }
        Ok(tokens.finish_reason().cloned().unwrap_or(FinishReason::Cancelled))
    })();
    held.note(engine, prompt, &yielded);
    outcome
}

/// The tokens of one request, as they are chosen. Dropping it cancels the request.
///
/// The stream ends after the last token, or after an error; [`TokenStream::finish_reason`] tells why.
pub struct TokenStream {
    events: UnboundedReceiver<Event>,
    cancel: Cancel,
    finished: Option<FinishReason>,
    over: bool,
}

impl TokenStream {
    /// Why there are no more tokens; `None` until the stream has ended, and after an error.
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.finished.as_ref()
    }
}

impl Stream for TokenStream {
    type Item = Result<u32, GenerateError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready(event) = Pin::new(&mut self.events).poll_next(context) else { return Poll::Pending };
        self.over = !matches!(event, Some(Event::Token(_)));
        Poll::Ready(match event {
            Some(Event::Token(token)) => Some(Ok(token)),
            Some(Event::Finished(reason)) => {
                self.finished = Some(reason);
                None
            }
            Some(Event::Failed(error)) => Some(Err(error)),
            // The service was dropped, or its thread panicked.
            None => Some(Err(SessionError::Ended.into())),
        })
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
