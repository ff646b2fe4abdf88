//! The state of an engine after an error, a refusal or a dropped iterator: the next call gives the result of a fresh
//! engine, bit for bit, or reports that a new engine is needed.

mod common;

use common::{Expected, Fault, Faulty, Hook, Hooked, adapters, fixture, gpus, hosts, ratios};
use fanfold::device::Device;
use fanfold::device::host::HostDevice;
use fanfold::generate::{Answers, Cancel, Engine, EngineOptions, GenerateError, GenerateOptions, Text};
use fanfold::import::{Folder, Head};
use fanfold::model::{Model, Pooling};
use fanfold::plan::{Strategy, plan};
use fanfold::session::SessionError;
use fanfold::tensor::{Region, Tensor};
use fanfold::text::{FinishReason, Sampler, Sampling};
use fanfold::weights::Weights;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const CONTEXT: usize = 24;

/// A model's weights in which the embedding of one token is not a number. A call with this token fails, and leaves
/// values that are not numbers in the KV cache.
struct Poisoned {
    model: Arc<Model>,
    token: u32,
}

impl Weights for Poisoned {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, fanfold::weights::SourceError> {
        let tensor = self.model.read(name, shape, region)?;
        let token = self.token as usize;
        if name != "model.embed_tokens.weight" || !region.0[0].contains(&token) {
            return Ok(tensor);
        }
        let mut values = tensor.as_f32()?.to_vec();
        let width = region.0[1].len();
        values[(token - region.0[0].start) * width..][..width].fill(f32::NAN);
        Ok(Tensor::f32(tensor.shape().to_vec(), values)?)
    }
}

/// An engine that feeds two tokens at a time, and fails on `token`.
fn engine(token: u32, devices: Vec<Box<dyn Device>>) -> Engine {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &ratios(devices.len())).unwrap();
    let weights = Arc::new(Poisoned { model: model.clone(), token });
    let options = EngineOptions::default().context(CONTEXT).chunk(2).batch(2);
    Engine::with_weights(model, weights, &plan, devices, options, Arc::new(|_| ())).unwrap()
}

fn greedy() -> Sampler {
    Sampler::new(Sampling::greedy()).unwrap()
}

fn prompt() -> Vec<u32> {
    Expected::of("llama-uneven").u32("ids_0")[..3].to_vec()
}

/// The tokens generated after the prompt if nothing fails.
fn answer(engine: &mut Engine, n: usize) -> Vec<u32> {
    engine.reset();
    engine
        .generate(&prompt(), greedy(), &GenerateOptions::new(n).ignore_end())
        .unwrap()
        .collect::<Result<_, GenerateError>>()
        .unwrap()
}

#[track_caller]
fn not_finite<T>(result: Result<T, GenerateError>) {
    match result {
        Err(GenerateError::NotFinite { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing fails"),
    }
}

/// Checks that `used` holds `held`: feeding it another token gives the bits of a fresh engine that was fed the same
/// tokens.
#[track_caller]
fn holds(used: &mut Engine, fresh: &mut Engine, held: &[u32]) {
    assert_eq!(used.past(), held.len());
    fresh.reset();
    held.iter().for_each(|&token| drop(fresh.feed(&[token]).unwrap()));
    let last = used.past();
    let (a, b) = (used.feed(&[1]).unwrap(), fresh.feed(&[1]).unwrap());
    // Chunks of other lengths may have another order of sums on a GPU.
    let error = fanfold::tensor::relative_error(a.as_f32().unwrap(), b.as_f32().unwrap());
    assert!(error < 1e-6, "error {error:e} after {held:?}");
    assert_eq!(used.rewind(last), last);
}

/// A token that occurs in no text here.
const NEVER: u32 = 383;

fn check_errors(devices: &dyn Fn() -> Vec<Box<dyn Device>>) {
    let mut fresh = engine(NEVER, devices());
    let prompt = prompt();
    let wanted = answer(&mut fresh, 8);
    // The fifth token is new, so an engine that fails on it generates four tokens before.
    let bad = wanted[4];
    assert!(!wanted[..4].contains(&bad) && !prompt.contains(&bad) && bad > 7, "{prompt:?} {wanted:?}");
    let mut used = engine(bad, devices());
    assert_eq!(used.feed(&prompt).unwrap().shape(), [1, 384]);
    holds(&mut used, &mut fresh, &prompt);

    // In the first and in the last of three chunks.
    for at in [1, 4] {
        let mut text = vec![2; 5];
        text[at] = bad;
        not_finite(used.feed(&text));
        holds(&mut used, &mut fresh, &prompt);
        not_finite(used.generate(&text, greedy(), &GenerateOptions::new(4).ignore_end()));
        holds(&mut used, &mut fresh, &prompt);
    }
    used.rewind(1);
    holds(&mut used, &mut fresh, &prompt[..1]);

    // A step that fails loses no token: the engine holds all but the one that could not be fed.
    used.reset();
    let mut told = Vec::new();
    let mut tokens = used.generate(&prompt, greedy(), &GenerateOptions::new(8).ignore_end()).unwrap();
    let failed = loop {
        match tokens.next() {
            Some(Ok(token)) => told.push(token),
            other => break other,
        }
    };
    not_finite(failed.expect("the error is told"));
    assert_eq!(tokens.next().map(|_| ()), None, "nothing comes after an error");
    assert_eq!(told, wanted[..5]);
    let held = [&prompt, &wanted[..4]].concat();
    holds(&mut used, &mut fresh, &held);

    // Several prompts: if one of them fails, nothing of any of them remains.
    let other = vec![5, 6];
    not_finite(used.generate_all(
        &[prompt.clone(), vec![7, bad]],
        vec![greedy(); 2],
        &GenerateOptions::new(4).ignore_end(),
    ));
    holds(&mut used, &mut fresh, &[]);
    used.feed(&prompt).unwrap();
    let answers =
        used.generate_all(&[prompt.clone(), other], vec![greedy(); 2], &GenerateOptions::new(8).ignore_end()).unwrap();
    let (mut told, mut errors) = (Vec::new(), 0);
    for answer in answers {
        match answer {
            Ok((0, token)) => told.push(token),
            Ok(_) => assert_eq!(errors, 0, "tokens come before the error that ends them"),
            Err(error) => {
                errors += 1;
                not_finite::<()>(Err(error));
            }
        }
    }
    assert_eq!((told.as_slice(), errors), (&wanted[..5], 1));
    holds(&mut used, &mut fresh, &[]);
    used.feed(&prompt).unwrap();
    not_finite(used.outputs(&[1, bad]));
    holds(&mut used, &mut fresh, &[]);
}

#[test]
fn after_an_error_an_engine_is_as_before_on_host() {
    check_errors(&|| hosts(3));
}

#[test]
fn after_an_error_an_engine_is_as_before_on_gpus() {
    for adapter in adapters() {
        check_errors(&|| gpus(&adapter, 2));
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let (mut used, mut fresh) = (engine(NEVER, hosts(2)), engine(NEVER, hosts(2)));
    let prompt = prompt();
    used.feed(&prompt).unwrap();
    let (long, unknown) = (vec![1; CONTEXT + 1], vec![1, 384]);
    for refused in [vec![], long.clone(), unknown.clone()] {
        assert!(used.feed(&refused).is_err() && used.outputs(&refused).is_err());
        assert!(used.generate(&refused, greedy(), &GenerateOptions::new(4).ignore_end()).is_err());
        let prompts = [prompt.clone(), refused];
        assert!(used.generate_all(&prompts, vec![greedy(); 2], &GenerateOptions::new(4).ignore_end()).is_err());
        holds(&mut used, &mut fresh, &prompt);
    }
    assert!(used.embed(&prompt).is_err() && used.scores(&prompt, &[]).is_err());
    assert!(
        used.generate_all(&vec![prompt.clone(); 3], vec![greedy(); 3], &GenerateOptions::new(4).ignore_end()).is_err()
    );
    holds(&mut used, &mut fresh, &prompt);
}

#[test]
fn one_text_that_is_refused_refuses_all_and_the_next_are_as_ever() {
    let hidden =
        |name: &str| Folder::open(fixture(name)).and_then(|f| Model::from_folder(f, Head::Hidden(Pooling::Mean)));
    let models = [hidden("bert").unwrap(), Model::open(fixture("bert-rerank")).unwrap()].map(Arc::new);
    for (model, scores) in models.into_iter().zip([false, true]) {
        let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
        let options = EngineOptions::default().context(16).batch(2);
        let mut engine = Engine::open(model.clone(), &plan, hosts(2), options, Arc::new(|_| ())).unwrap();
        let mut run = |texts: &[Text]| match scores {
            true => engine.scores_all(texts, |_| ()),
            false => engine.embed_all(texts, |_| ()),
        };
        let good = [vec![1, 2, 3].into(), vec![4, 5].into(), vec![6].into()];
        let wanted = run(&good).unwrap();
        for refused in [vec![], vec![1; 17], vec![1 << 30]] {
            assert!(run(&[good[0].clone(), good[1].clone(), refused.into()]).is_err());
            assert_eq!(run(&good).unwrap(), wanted);
        }
    }
}

#[test]
fn iterators_may_be_dropped_anywhere() {
    let (mut used, mut fresh) = (engine(NEVER, hosts(2)), engine(NEVER, hosts(2)));
    let prompt = prompt();
    let wanted = answer(&mut fresh, 8);
    for taken in 0..5 {
        used.reset();
        let tokens = used.generate(&prompt, greedy(), &GenerateOptions::new(8).ignore_end()).unwrap();
        let told: Vec<u32> = tokens.take(taken).collect::<Result<_, GenerateError>>().unwrap();
        assert_eq!(told, wanted[..taken]);
        // The last token was not fed.
        let held = [&prompt, &wanted[..taken.saturating_sub(1)]].concat();
        holds(&mut used, &mut fresh, &held);
        let prompts = [prompt.clone(), vec![4]];
        let mut answers =
            used.generate_all(&prompts, vec![greedy(); 2], &GenerateOptions::new(8).ignore_end()).unwrap();
        assert!(answers.by_ref().take(taken).all(|answer| answer.is_ok()));
        // Even an iterator that is leaked and never dropped leaves nothing behind.
        if taken % 2 == 0 {
            drop(answers)
        } else {
            std::mem::forget(answers)
        }
        holds(&mut used, &mut fresh, &[]);
    }
}

#[test]
fn a_text_ends_where_the_context_does() {
    let mut used = engine(NEVER, hosts(2));
    let prompt = prompt();
    let room = CONTEXT - prompt.len();
    let told = answer(&mut used, 100);
    // The last token is chosen when the cache is full, and has no position in it.
    assert_eq!((told.len(), used.past()), (room + 1, CONTEXT));
    assert_eq!(answer(&mut used, room)[..], told[..room]);
    used.reset();
    let answers = used.generate_all(&[prompt], vec![greedy()], &GenerateOptions::new(100).ignore_end()).unwrap();
    assert_eq!(answers.map(|answer| answer.unwrap().1).collect::<Vec<_>>(), told);
}

#[test]
fn a_text_that_is_stopped_holds_what_was_fed() {
    let (mut used, mut fresh) = (engine(NEVER, hosts(2)), engine(NEVER, hosts(2)));
    let (prompt, stop) = (prompt(), Arc::new(AtomicBool::new(false)));
    let mut tokens =
        used.generate(&prompt, greedy(), &GenerateOptions::new(8).ignore_end().cancel(stop.clone())).unwrap();
    assert!(tokens.logits().is_empty());
    let told = [tokens.next(), tokens.next()].map(|token| token.unwrap().unwrap());
    assert_eq!(fanfold::proof::argmax(tokens.logits()) as u32, told[1]);
    stop.store(true, Ordering::Relaxed);
    assert!(tokens.next().is_none());
    holds(&mut used, &mut fresh, &[&prompt, &told[..1]].concat());
    used.reset();
    let mut stopped = used.generate(&prompt, greedy(), &GenerateOptions::new(8).ignore_end().cancel(stop)).unwrap();
    assert!(stopped.next().is_none());
    assert_eq!(stopped.finish_reason(), Some(&FinishReason::Cancelled));
    holds(&mut used, &mut fresh, &[]);
    // An answer that is empty for another reason is not a cancelled one, and the engine holds its prompt.
    let mut empty = used.generate(&prompt, greedy(), &GenerateOptions::new(0)).unwrap();
    assert!(empty.next().is_none());
    assert_eq!(empty.finish_reason(), Some(&FinishReason::Length));
    holds(&mut used, &mut fresh, &prompt);
}

#[test]
fn a_prompt_that_is_cancelled_halfway_leaves_what_was_held_before() {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let plan = plan(model.graph(), Strategy::Single, &[1.0]).unwrap();
    let options = EngineOptions::default().context(64).chunk(4);
    let cancel = Cancel::default();
    let (asked, mut calls) = (cancel.clone(), 0);
    // A sampler cannot cancel, but a device can: in its third call, the prompt's second of three.
    let device = Hooked::new("cancelling", move |hook| {
        calls += usize::from(matches!(hook, Hook::Begin));
        if calls == 3 {
            asked.cancel();
        }
        Ok(())
    });
    let mut engine = Engine::open(model, &plan, vec![Box::new(device)], options, Arc::new(|_| ())).unwrap();
    engine.feed(&[1, 2, 3]).unwrap();
    let prompt: Vec<u32> = (10..22).collect();
    let mut tokens = engine.generate(&prompt, greedy(), &GenerateOptions::new(8).cancel(cancel)).unwrap();
    assert!(tokens.next().is_none());
    assert_eq!(tokens.finish_reason(), Some(&FinishReason::Cancelled));
    assert_eq!(engine.past(), 3);
}

#[test]
fn prompts_that_are_cancelled_halfway_or_between_tokens_leave_nothing() {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let plan = plan(model.graph(), Strategy::Single, &[1.0]).unwrap();
    let options = EngineOptions::default().context(64).chunk(4).batch(2);
    let (cancel, calls) = (Cancel::default(), Arc::new(AtomicUsize::new(0)));
    let (asked, counted) = (cancel.clone(), calls.clone());
    let device = Hooked::new("cancelling", move |hook| {
        if matches!(hook, Hook::Begin) && counted.fetch_add(1, Ordering::Relaxed) == 1 {
            asked.cancel();
        }
        Ok(())
    });
    let mut engine = Engine::open(model, &plan, vec![Box::new(device)], options, Arc::new(|_| ())).unwrap();
    let prompts = [vec![4, 5], (10..22).collect()];
    let reasons = |answers: &Answers<'_>| [0, 1].map(|prompt| answers.finish_reason(prompt).cloned());
    let cancelled = [Some(FinishReason::Cancelled), Some(FinishReason::Cancelled)];
    let generate = GenerateOptions::new(8).ignore_end();
    let mut answers =
        engine.generate_all(&prompts, vec![greedy(); 2], &generate.clone().cancel(cancel.clone())).unwrap();
    assert!(answers.next().is_none());
    assert_eq!((reasons(&answers), calls.load(Ordering::Relaxed)), (cancelled.clone(), 2));
    assert_eq!(engine.past(), 0);

    let whole: Result<Vec<_>, _> = engine.generate_all(&prompts, vec![greedy(); 2], &generate).unwrap().collect();
    let cancel = Cancel::default();
    let mut answers =
        engine.generate_all(&prompts, vec![greedy(); 2], &generate.clone().cancel(cancel.clone())).unwrap();
    let told: Vec<_> = answers.by_ref().take(4).map(Result::unwrap).collect();
    cancel.cancel();
    assert!(answers.next().is_none());
    assert_eq!((&told[..], reasons(&answers)), (&whole.unwrap()[..4], cancelled));
    assert_eq!(engine.past(), 0);
    // Answers that are empty because no token was requested are not cancelled ones.
    let mut none = engine.generate_all(&prompts, vec![greedy(); 2], &GenerateOptions::new(0)).unwrap();
    assert!(none.next().is_none());
    assert_eq!(reasons(&none), [Some(FinishReason::Length), Some(FinishReason::Length)]);
}

#[test]
fn an_engine_that_lost_a_rank_says_so_whatever_is_asked() {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
    let mut devices = hosts(2);
    devices[1] = Box::new(Faulty { host: HostDevice::new(), at: 9, fault: Fault::Lost });
    let options = EngineOptions::default().context(CONTEXT).deadline(Duration::from_secs(20));
    let mut engine = Engine::open(model, &plan, devices, options, Arc::new(|_| ())).unwrap();
    assert!(engine.feed(&[1]).is_err());
    let ended = |result: Result<(), GenerateError>| matches!(result, Err(GenerateError::Session(SessionError::Ended)));
    for _ in 0..2 {
        assert!(ended(engine.feed(&[1]).map(drop)));
        assert!(ended(engine.outputs(&[1]).map(drop)));
        assert!(ended(engine.generate(&[1], greedy(), &GenerateOptions::new(2).ignore_end()).map(drop)));
        assert!(ended(
            engine.generate_all(&[vec![1]], vec![greedy()], &GenerateOptions::new(2).ignore_end()).map(drop)
        ));
        assert!(ended(engine.report().map(drop)));
        // None of it is undone.
        engine.reset();
    }
}
