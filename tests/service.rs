//! An engine that serves several callers: streams give what the engine gives, and each caller can go at any time.

mod common;

use common::hosts;
use fanfold::generate::{Cancel, GenerateError, GenerateOptions, Service};
use fanfold::plan::{Strategy, plan};
use fanfold::session::SessionError;
use fanfold::text::FinishReason;
use fanfold::{Engine, EngineOptions, Model, Sampler, Sampling};
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;

fn engine() -> Engine {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[2.0, 1.0]).unwrap();
    let options = EngineOptions { context: 96, ..EngineOptions::default() };
    Engine::open(model, &plan, hosts(2), options, Arc::new(|_| ())).unwrap()
}

fn greedy() -> Sampler {
    Sampler::new(Sampling::greedy()).unwrap()
}

fn options(tokens: usize) -> GenerateOptions {
    GenerateOptions::new(tokens).ignore_end()
}

fn alone(prompt: &[u32], tokens: usize) -> Vec<u32> {
    engine().generate(prompt, greedy(), &options(tokens)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn requests_are_answered_in_turn_as_if_each_were_alone() {
    let service = Service::start(engine(), 8).unwrap();
    // The second begins as the first does, the third as neither.
    let prompts: [&[u32]; 3] = [&[50, 47, 45], &[50, 47, 45, 12, 9], &[7, 8]];
    let streams = prompts.map(|prompt| service.generate(prompt.to_vec(), greedy(), options(6)).unwrap());
    for (mut stream, prompt) in streams.into_iter().zip(prompts) {
        let tokens: Vec<u32> = pollster::block_on(stream.by_ref().map(Result::unwrap).collect());
        assert_eq!(tokens, alone(prompt, 6));
        assert_eq!(stream.finish_reason(), Some(&FinishReason::Length));
        assert!(pollster::block_on(stream.next()).is_none());
    }
}

#[test]
fn a_caller_that_goes_or_cancels_ends_its_own_answer_only() {
    let service = Service::start(engine(), 8).unwrap();
    let mut gone = service.generate(vec![50, 47, 45], greedy(), options(80)).unwrap();
    assert!(pollster::block_on(gone.next()).unwrap().is_ok());
    drop(gone);
    let cancel = Cancel::default();
    let mut cancelled = service.generate(vec![1, 2], greedy(), options(80).cancel(cancel.clone())).unwrap();
    assert!(pollster::block_on(cancelled.next()).unwrap().is_ok());
    cancel.cancel();
    let rest = pollster::block_on(cancelled.by_ref().count());
    assert!(rest < 79 && cancelled.finish_reason() == Some(&FinishReason::Cancelled), "{rest} more tokens");
    let next = service.generate(vec![50, 47, 45], greedy(), options(5)).unwrap();
    let tokens: Vec<u32> = pollster::block_on(next.map(Result::unwrap).collect());
    assert_eq!(tokens, alone(&[50, 47, 45], 5));
}

#[test]
fn what_is_wrong_with_a_request_is_an_error_of_its_stream() {
    let service = Service::start(engine(), 1).unwrap();
    for prompt in [vec![], vec![100_000], vec![1; 97]] {
        let mut stream = service.generate(prompt.clone(), greedy(), options(1)).unwrap();
        assert!(pollster::block_on(stream.next()).unwrap().is_err(), "{prompt:?}");
        assert!(pollster::block_on(stream.next()).is_none() && stream.finish_reason().is_none());
    }
    // One is answered and one waits: there is no room for more.
    let mut first = service.generate(vec![1], greedy(), options(90)).unwrap();
    assert!(pollster::block_on(first.next()).unwrap().is_ok());
    let _second = service.generate(vec![1], greedy(), options(90)).unwrap();
    let refused = service.generate(vec![1], greedy(), options(90)).map(drop);
    assert!(matches!(refused, Err(GenerateError::Busy { waiting: 1 })), "{refused:?}");
    // A stream whose service is gone ends with an error, at once.
    drop(service);
    let ended = |event: Option<Result<u32, GenerateError>>| {
        matches!(event, None | Some(Ok(_) | Err(GenerateError::Session(SessionError::Ended))))
    };
    while let Some(event) = first.next().now_or_never().expect("nothing is waited for") {
        assert!(ended(Some(event)));
    }
}
