//! An engine that serves many callers, asynchronous ones too: one thread owns it, requests wait in a queue, and each caller
//! reads its tokens from a stream or is called back.
//!
//! It deliberately knows no runtime: the stream is `futures_core`'s, and no thread is taken per request or per token. Read
//! `tokens.rs` for how an answer ends, and `examples/async_server.rs` for a server on tokio.

use super::cancel::Cancel;
use super::engine::Engine;
use super::error::GenerateError;
use super::held::Held;
use super::tokens::GenerateOptions;
use crate::text::{FinishReason, Sampler};
use futures_channel::mpsc::{UnboundedReceiver, unbounded};
use futures_core::Stream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

/// What [`Service::generate_with`] tells of one request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The next token.
    Token(u32),
    /// There are no more tokens, and why. It is told once, after all tokens.
    End(Result<FinishReason, GenerateError>),
}

/// Hears of one request, and always of its end.
struct Listener(Option<Box<dyn FnMut(Event) + Send>>);

impl Listener {
    /// Tells a token; false where nobody listens any more, because the listener has panicked.
    fn token(&mut self, token: u32) -> bool {
        self.tell(Event::Token(token));
        self.0.is_some()
    }

    fn end(&mut self, last: Result<FinishReason, GenerateError>) {
        self.tell(Event::End(last));
        self.0 = None;
    }

    /// A listener that panics hears no more, and does no harm to the engine that others use.
    fn tell(&mut self, event: Event) {
        let Some(listener) = &mut self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| listener(event))).is_err() {
            self.0 = None;
        }
    }
}

impl Drop for Listener {
    /// A request that is dropped unanswered, because the service's thread has panicked, has ended as well.
    fn drop(&mut self) {
        self.end(Err(GenerateError::Closed));
    }
}

struct Request {
    prompt: Vec<u32>,
    sampler: Sampler,
    options: GenerateOptions,
    listener: Listener,
}

/// An engine on a thread of its own, which answers one request after the other.
///
/// Every request is a whole text. What its prompt has in common with the text before it stays in the KV cache and is not fed
/// again. All methods take `&self` and return at once, so that any number of threads or asynchronous tasks may share a service.
///
/// An error of one request ends that request. After an error that ends the engine's session every request ends with
/// [`SessionError::Ended`](crate::session::SessionError::Ended); after a panic of the engine, with [`GenerateError::Closed`].
///
/// Dropping the service cancels all requests, those that wait too. It blocks until the engine has finished the step under way,
/// and the listener that is running has returned.
///
/// ```
/// use fanfold::device::{Device, host::HostDevice};
/// use fanfold::generate::{GenerateOptions, Service};
/// use fanfold::{Engine, EngineOptions, Model, Sampler, Sampling, plan::Plan};
/// use futures_util::StreamExt;
/// use std::sync::Arc;
///
/// # fn main() -> fanfold::Result<()> {
/// let model = Arc::new(Model::demo()?);
/// let plan = Plan::whole(model.graph(), 1).build()?;
/// let devices = vec![Box::new(HostDevice::new()) as Box<dyn Device>];
/// let engine = Engine::open(model, &plan, devices, EngineOptions::default(), Arc::new(|_bytes| ()))?;
/// let service = Service::start(engine, 8)?;
/// let greedy = Sampler::new(Sampling::greedy())?;
/// let mut stream = service.generate(vec![50, 47, 45], greedy, GenerateOptions::new(4))?;
/// pollster::block_on(async {
///     while let Some(token) = stream.next().await {
///         println!("{}", token?);
///     }
///     println!("ended: {:?}", stream.finish_reason());
///     Ok(())
/// })
/// # }
/// ```
pub struct Service {
    /// None once the service is being closed. A channel of the standard library, which drops what waits in it as soon as its
    /// receiver is gone: so requests end where the engine's thread has panicked.
    requests: Option<SyncSender<Request>>,
    /// Requests that may wait.
    queue: usize,
    /// Cancels every request when the service is closed.
    closing: Cancel,
    thread: Option<JoinHandle<Option<Engine>>>,
}

impl Service {
    /// Gives `engine` a thread. At most `queue` requests, and at least one, wait while another is answered.
    ///
    /// Errors when the system gives no thread.
    pub fn start(mut engine: Engine, queue: usize) -> Result<Service, GenerateError> {
        let queue = queue.max(1);
        let (requests, inbox) = sync_channel(queue);
        engine.reset();
        let mut held = Held::default();
        let work = move || serve(engine, &inbox, |engine, request| answer(engine, &mut held, request));
        let thread = std::thread::Builder::new().name("engine".to_string()).spawn(work);
        let thread = thread.map_err(|error| GenerateError::Thread { reason: error.to_string() })?;
        Ok(Service { requests: Some(requests), queue, closing: Cancel::default(), thread: Some(thread) })
    }

    /// Asks for the tokens that continue `prompt`, the beginning of a text.
    ///
    /// Errors with [`GenerateError::Busy`] when the queue is full, and with [`GenerateError::Closed`] when the engine has
    /// panicked. Whatever is wrong with the prompt is told by the stream.
    pub fn generate(
        &self,
        prompt: Vec<u32>,
        sampler: Sampler,
        options: GenerateOptions,
    ) -> Result<TokenStream, GenerateError> {
        // There are at most as many tokens as the context holds, so the channel needs no other bound, and a caller that reads
        // slowly keeps nobody waiting.
        let (sender, events) = unbounded();
        let dropped = Cancel::default();
        let options = GenerateOptions { cancel: options.cancel.or(&dropped), ..options };
        self.generate_with(prompt, sampler, options, move |event| {
            // A stream that is gone has cancelled its request.
            let _ = sender.unbounded_send(event);
        })?;
        Ok(TokenStream { events, dropped, finished: None, over: false })
    }

    /// As [`Service::generate`], with every [`Event`] handed to `listener`, which runs on the engine's thread: while it runs, all
    /// requests wait. One that panics is told nothing more and cancels its request.
    ///
    /// Errors as [`Service::generate`]; the listener is then told nothing.
    pub fn generate_with(
        &self,
        prompt: Vec<u32>,
        sampler: Sampler,
        options: GenerateOptions,
        listener: impl FnMut(Event) + Send + 'static,
    ) -> Result<(), GenerateError> {
        let options = GenerateOptions { cancel: options.cancel.or(&self.closing), ..options };
        let request = Request { prompt, sampler, options, listener: Listener(Some(Box::new(listener))) };
        let requests = self.requests.as_ref().ok_or(GenerateError::Closed)?;
        let (mut refused, error) = match requests.try_send(request) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(refused)) => (refused, GenerateError::Busy { waiting: self.queue }),
            Err(TrySendError::Disconnected(refused)) => (refused, GenerateError::Closed),
        };
        refused.listener.0 = None;
        Err(error)
    }

    /// Cancels all requests, and gives the engine back once it has finished the step under way.
    ///
    /// Errors with [`GenerateError::Closed`] when the engine has panicked, and when a listener closes the service that it is
    /// called by.
    pub fn close(mut self) -> Result<Engine, GenerateError> {
        self.finish().ok_or(GenerateError::Closed)
    }

    fn finish(&mut self) -> Option<Engine> {
        self.closing.cancel();
        self.requests = None;
        // A thread cannot wait for itself: it ends on its own after the listener that it runs.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id())?;
        thread.join().ok().flatten()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Answers requests until there can be no more, and returns the engine. Nothing is returned after a panic of `answer`: in what
/// state that left the engine is unknown, and all requests that wait end with [`GenerateError::Closed`].
fn serve<E>(
    mut engine: E,
    inbox: &Receiver<Request>,
    mut answer: impl FnMut(&mut E, &mut Request) -> Result<FinishReason, GenerateError>,
) -> Option<E> {
    for mut request in inbox {
        let last = match request.options.cancel.is_cancelled() {
            true => Ok(FinishReason::Cancelled),
            false => catch_unwind(AssertUnwindSafe(|| answer(&mut engine, &mut request))).ok()?,
        };
        request.listener.end(last);
    }
    Some(engine)
}

/// Answers one request; returns why the answer ended.
fn answer(engine: &mut Engine, held: &mut Held, request: &mut Request) -> Result<FinishReason, GenerateError> {
    let Request { prompt, sampler, options, listener } = request;
    let prompt = std::mem::take(prompt);
    let kept = held.rewind(engine, &prompt);
    sampler.accept(&prompt[..kept]);
    let mut yielded = Vec::new();
    let last = continued(engine, &prompt[kept..], sampler, options, |token| {
        yielded.push(token);
        listener.token(token)
    });
    held.note(engine, prompt, &yielded);
    last
}

/// Continues what `engine` holds until there are no more tokens, or `told` wants no more of them.
fn continued(
    engine: &mut Engine,
    tokens: &[u32],
    sampler: &Sampler,
    options: &GenerateOptions,
    mut told: impl FnMut(u32) -> bool,
) -> Result<FinishReason, GenerateError> {
    let mut tokens = engine.generate(tokens, sampler.clone(), options)?;
    while let Some(token) = tokens.next().transpose()? {
        if !told(token) {
            return Ok(FinishReason::Cancelled);
        }
    }
    // Tokens that end without an error have a reason.
    Ok(tokens.finish_reason().cloned().unwrap_or(FinishReason::Cancelled))
}

/// The tokens of one request, as they are chosen. Dropping it cancels the request.
///
/// The stream ends after the last token, or after an error; [`TokenStream::finish_reason`] tells why. A service that is closed
/// cancels its streams.
pub struct TokenStream {
    events: UnboundedReceiver<Event>,
    /// Tells the engine that the stream was dropped.
    dropped: Cancel,
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
            Some(Event::End(Ok(reason))) => {
                self.finished = Some(reason);
                None
            }
            Some(Event::End(Err(error))) => Some(Err(error)),
            // A listener always tells the end; a channel that ends otherwise is no answer.
            None => Some(Err(GenerateError::Closed)),
        })
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.dropped.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Sampling;
    use std::sync::mpsc::channel;

    fn request() -> (Request, Receiver<Event>) {
        let (sender, told) = channel();
        let listener: Box<dyn FnMut(Event) + Send> = Box::new(move |event| drop(sender.send(event)));
        let sampler = Sampler::new(Sampling::greedy()).unwrap();
        let options = GenerateOptions::new(1);
        (Request { prompt: vec![1], sampler, options, listener: Listener(Some(listener)) }, told)
    }

    #[test]
    fn a_panic_of_the_engine_ends_every_request_with_an_error() {
        let (sender, inbox) = sync_channel(3);
        let told: Vec<_> = (0..3)
            .map(|_| {
                let (request, told) = request();
                sender.try_send(request).ok().unwrap();
                told
            })
            .collect();
        let mut answered = 0;
        let work = move || {
            let engine = serve((), &inbox, |(), request| {
                answered += 1;
                assert!(answered < 2, "a panic that this test wants");
                request.listener.token(7);
                Ok(FinishReason::Length)
            });
            assert!(engine.is_none());
        };
        std::thread::spawn(work).join().unwrap();
        let heard: Vec<Vec<Event>> = told.iter().map(|told| told.try_iter().collect()).collect();
        assert!(matches!(heard[0][..], [Event::Token(7), Event::End(Ok(FinishReason::Length))]), "{heard:?}");
        for heard in &heard[1..] {
            assert!(matches!(heard[..], [Event::End(Err(GenerateError::Closed))]), "{heard:?}");
        }
        assert!(matches!(sender.try_send(request().0), Err(TrySendError::Disconnected(_))));
    }
}
