//! An engine that serves many callers: each gets the result of an engine alone, and every request ends, whatever
//! happens.

mod common;

use common::{Expected, Fault, Faulty, fixture, hosts};
use fanfold::device::Device;
use fanfold::device::host::HostDevice;
use fanfold::generate::{Cancel, Event, GenerateError, GenerateOptions, Service, TokenStream};
use fanfold::plan::{Strategy, plan};
use fanfold::session::SessionError;
use fanfold::text::FinishReason;
use fanfold::{Engine, EngineOptions, Model, Sampler, Sampling};
use futures_util::StreamExt;
use pollster::block_on;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A time far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn engine(devices: Vec<Box<dyn Device>>) -> Engine {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
    let mut options = EngineOptions::default();
    (options.context, options.chunk) = (64, 2);
    Engine::open(model, &plan, devices, options, Arc::new(|_| ())).unwrap()
}

fn service(queue: usize) -> Service {
    Service::start(engine(hosts(2)), queue).unwrap()
}

fn greedy() -> Sampler {
    Sampler::new(Sampling::greedy()).unwrap()
}

fn tokens(n: usize) -> GenerateOptions {
    GenerateOptions::new(n).ignore_end()
}

fn prompt() -> Vec<u32> {
    Expected::of("llama-uneven").u32("ids_1")
}

/// The result of an engine that serves no other caller.
fn alone(prompt: &[u32], n: usize) -> Vec<u32> {
    let mut engine = engine(hosts(2));
    engine.generate(prompt, greedy(), &tokens(n)).unwrap().collect::<Result<_, _>>().unwrap()
}

type Ended = (Vec<u32>, Result<Option<FinishReason>, GenerateError>);

/// Everything that a stream gives, and how it ends.
fn heard(mut stream: TokenStream) -> Ended {
    let mut tokens = Vec::new();
    while let Some(token) = block_on(stream.next()) {
        match token {
            Ok(token) => tokens.push(token),
            Err(error) => {
                assert!(block_on(stream.next()).is_none(), "nothing comes after an error");
                return (tokens, Err(error));
            }
        }
    }
    (tokens, Ok(stream.finish_reason().cloned()))
}

#[track_caller]
fn finished((told, end): Ended, wanted: &[u32], reason: FinishReason) {
    assert_eq!((told.as_slice(), end.unwrap()), (wanted, Some(reason)));
}

/// A request whose listener blocks the engine at its first token until it is released, so that requests made meanwhile
/// wait. When this returns, the engine is blocked.
fn occupy(service: &Service, n: usize, cancel: &Cancel) -> (Sender<()>, Receiver<Event>) {
    let ((release, released), (tell, told), (begin, begun)) = (channel::<()>(), channel(), channel());
    let mut first = true;
    let listener = move |event| {
        if std::mem::take(&mut first) {
            begin.send(()).unwrap();
            let _ = released.recv_timeout(LONG);
        }
        let _ = tell.send(event);
    };
    service.generate_with(prompt(), greedy(), tokens(n).cancel(cancel.clone()), listener).unwrap();
    begun.recv_timeout(LONG).unwrap();
    (release, told)
}

fn told(events: &Receiver<Event>) -> Ended {
    let mut tokens = Vec::new();
    loop {
        match events.recv_timeout(LONG).unwrap() {
            Event::Token(token) => tokens.push(token),
            Event::End(last) => return (tokens, last.map(Some)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn requests_at_once_are_answered_as_alone() {
    let service = service(8);
    let whole = prompt();
    let prompts = [whole.clone(), whole[..5].to_vec(), vec![7, 8, 9], whole.clone(), whole[..5].to_vec()];
    let streams: Vec<TokenStream> =
        prompts.iter().map(|prompt| service.generate(prompt.clone(), greedy(), tokens(6)).unwrap()).collect();
    for (stream, prompt) in streams.into_iter().zip(&prompts) {
        finished(heard(stream), &alone(prompt, 6), FinishReason::Length);
    }
    finished(heard(service.generate(vec![7], greedy(), tokens(0)).unwrap()), &[], FinishReason::Length);
    let (_, context) = heard(service.generate(vec![7], greedy(), tokens(usize::MAX)).unwrap());
    assert_eq!(context.unwrap(), Some(FinishReason::Context));
}

#[test]
fn what_a_prompt_shares_with_the_text_before_is_not_fed_again() {
    let exchanges = |engine: &mut Engine| engine.report().unwrap()[0].exchanges;
    let mut one = engine(hosts(2));
    one.feed(&[1]).unwrap();
    let per_call = exchanges(&mut one);
    let calls = |times: usize| {
        let service = service(8);
        for _ in 0..times {
            finished(
                heard(service.generate(prompt(), greedy(), tokens(3)).unwrap()),
                &alone(&prompt(), 3),
                FinishReason::Length,
            );
        }
        let mut engine = service.close().unwrap();
        // The last token is never fed.
        assert_eq!(engine.past(), prompt().len() + 2);
        exchanges(&mut engine) / per_call
    };
    // The prompt is fed in chunks of two, then two tokens; the second time its last token and two more.
    let once = prompt().len().div_ceil(2) as u64 + 2;
    assert_eq!((calls(1), calls(2)), (once, once + 3));
}

#[test]
fn a_request_that_is_refused_ends_alone() {
    let service = service(8);
    for (refused, is) in [
        (vec![], "EmptyPrompt"),
        (vec![1; 65], "Context { tokens: 65, capacity: 64, limit: Some(64) }"),
        (vec![1, 1 << 30], "Token"),
    ] {
        let (none, error) = heard(service.generate(refused, greedy(), tokens(2)).unwrap());
        let error = format!("{:?}", error.unwrap_err());
        assert!(none.is_empty() && error.starts_with(is.split(',').next().unwrap()), "{error}");
    }
    finished(
        heard(service.generate(prompt(), greedy(), tokens(2)).unwrap()),
        &alone(&prompt(), 2),
        FinishReason::Length,
    );
}

#[test]
fn a_full_queue_refuses_and_tells_the_listener_nothing() {
    let service = service(1);
    let (release, first) = occupy(&service, 2, &Cancel::default());
    let second = service.generate(vec![3], greedy(), tokens(2)).unwrap();
    let third = service.generate_with(vec![4], greedy(), tokens(2), |event| panic!("{event:?}"));
    assert!(matches!(third, Err(GenerateError::Busy { waiting: 1 })), "{third:?}");
    assert!(matches!(service.generate(vec![4], greedy(), tokens(2)), Err(GenerateError::Busy { .. })));
    release.send(()).unwrap();
    finished(told(&first), &alone(&prompt(), 2), FinishReason::Length);
    finished(heard(second), &alone(&[3], 2), FinishReason::Length);
}

#[test]
fn a_stream_that_is_dropped_cancels_its_request_and_no_other() {
    let service = service(8);
    // All of them share a handle that is not used otherwise.
    let cancel = Cancel::default();
    let ask = || service.generate(prompt(), greedy(), tokens(20).cancel(cancel.clone())).unwrap();
    let (release, first) = occupy(&service, 3, &cancel);
    let (waiting, next) = (ask(), ask());
    drop(waiting);
    release.send(()).unwrap();
    finished(told(&first), &alone(&prompt(), 3), FinishReason::Length);
    finished(heard(next), &alone(&prompt(), 20), FinishReason::Length);
    // One that is being read, and one that was read to its end.
    let mut read = ask();
    assert!(block_on(read.next()).unwrap().is_ok());
    drop(read);
    finished(heard(ask()), &alone(&prompt(), 20), FinishReason::Length);
    finished(heard(ask()), &alone(&prompt(), 20), FinishReason::Length);
    assert!(!cancel.is_cancelled());
}

#[test]
fn cancelling_ends_every_request_that_shares_the_handle() {
    let service = service(8);
    let (cancel, other) = (Cancel::default(), Cancel::default());
    let (release, first) = occupy(&service, 30, &cancel);
    let ask = |cancel: &Cancel| service.generate(prompt(), greedy(), tokens(4).cancel(cancel.clone())).unwrap();
    let (shares, differs) = (ask(&cancel), ask(&other));
    cancel.cancel();
    release.send(()).unwrap();
    finished(told(&first), &alone(&prompt(), 1), FinishReason::Cancelled);
    finished(heard(shares), &[], FinishReason::Cancelled);
    finished(heard(differs), &alone(&prompt(), 4), FinishReason::Length);
}

#[test]
fn closing_cancels_what_runs_and_what_waits_and_gives_the_engine_back() {
    let service = service(8);
    let (tell, events) = channel();
    // The request takes long enough that the service is closed before the answer is complete.
    let listener = move |event| {
        let _ = tell.send(event);
        std::thread::sleep(Duration::from_millis(100));
    };
    service.generate_with(prompt(), greedy(), tokens(25), listener).unwrap();
    assert!(matches!(events.recv_timeout(LONG).unwrap(), Event::Token(_)));
    let waiting = service.generate(prompt(), greedy(), tokens(4)).unwrap();
    let mut engine = service.close().unwrap();
    let (more, end) = told(&events);
    assert_eq!((end.unwrap(), more.len()), (Some(FinishReason::Cancelled), engine.past() - prompt().len()));
    assert!(more.len() < 24);
    finished(heard(waiting), &[], FinishReason::Cancelled);
    engine.reset();
    let again: Result<Vec<u32>, _> = engine.generate(&prompt(), greedy(), &tokens(4)).unwrap().collect();
    assert_eq!(again.unwrap(), alone(&prompt(), 4));
}

#[test]
fn a_service_may_be_dropped_by_a_listener_of_its_own() {
    let (service, (tell, events)) = (Arc::new(service(8)), channel());
    let mut own = Some(service.clone());
    let (handed_over, wait) = channel::<()>();
    let listener = move |event| {
        let _ = wait.recv_timeout(LONG);
        drop(own.take());
        let _ = tell.send(event);
    };
    service.generate_with(prompt(), greedy(), tokens(30), listener).unwrap();
    drop(service);
    drop(handed_over);
    finished(told(&events), &alone(&prompt(), 1), FinishReason::Cancelled);
}

#[test]
fn a_listener_that_panics_harms_no_other_request() {
    let service = service(8);
    service.generate_with(prompt(), greedy(), tokens(30), |_| panic!("a panic that this test wants")).unwrap();
    finished(
        heard(service.generate(prompt(), greedy(), tokens(4)).unwrap()),
        &alone(&prompt(), 4),
        FinishReason::Length,
    );
}

#[test]
fn an_engine_that_dies_ends_every_stream_with_an_error() {
    let mut devices = hosts(2);
    devices[1] = Box::new(Faulty { host: HostDevice::new(), at: 9, fault: Fault::Lost });
    let service = Service::start(engine(devices), 8).unwrap();
    let mut streams = (0..3).map(|_| service.generate(prompt(), greedy(), tokens(4)).unwrap());
    let (first, rest): (TokenStream, Vec<TokenStream>) = (streams.next().unwrap(), streams.collect());
    let (_, error) = heard(first);
    assert!(matches!(error, Err(GenerateError::Session(SessionError::Rank { rank: 1, .. }))), "{error:?}");
    for stream in rest.into_iter().chain([service.generate(prompt(), greedy(), tokens(4)).unwrap()]) {
        let (none, error) = heard(stream);
        assert!(none.is_empty() && matches!(error, Err(GenerateError::Session(SessionError::Ended))), "{error:?}");
    }
}
