//! Several sequences in one call against one at a time, and the error about a value that is not a number.

mod common;

use common::{Expected, adapters, fixture, gpus, hosts, mixed, ratios, values};
use fanfold::device::Device;
use fanfold::generate::GenerateError;
use fanfold::generate::GenerateOptions;
use fanfold::generate::{Engine, EngineOptions, Text};
use fanfold::import::{Folder, Head};
use fanfold::model::{Model, Pooling};
use fanfold::plan::{Strategy, plan};
use fanfold::random::Random;
use fanfold::session::SessionError;
use fanfold::tensor::{Region, Tensor, relative_error};
use fanfold::text::{Sampler, Sampling};
use fanfold::weights::Weights;
use std::sync::Arc;

fn open(model: &Arc<Model>, batch: usize, devices: Vec<Box<dyn Device>>) -> Engine {
    let strategy = if devices.len() == 1 { Strategy::Single } else { Strategy::Tensor };
    let plan = plan(model.graph(), strategy, &ratios(devices.len())).unwrap();
    let options = EngineOptions::default().context(128).chunk(64).batch(batch);
    Engine::open(model.clone(), &plan, devices, options, Arc::new(|_| ())).unwrap()
}

fn texts(random: &mut Random, n: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let text = |random: &mut Random| {
        let length = random.range(1, 40);
        (0..length).map(|_| random.range(0, vocabulary - 1) as u32).collect()
    };
    (0..n).map(|_| text(random)).collect()
}

/// A batch of texts gives each text's own vector, with every kind of pooling.
fn check_texts(pooling: Pooling, devices: impl Fn() -> Vec<Box<dyn Device>>) {
    let model = Arc::new(Model::from_folder(Folder::open(fixture("bert")).unwrap(), Head::Hidden(pooling)).unwrap());
    let mut random = Random::new(7);
    let texts: Vec<Text> = texts(&mut random, 17, model.info().vocabulary).into_iter().map(Text::from).collect();
    let alone = open(&model, 1, devices()).embed_all(&texts, |_| ()).unwrap();
    let mut told = Vec::new();
    let together = open(&model, 5, devices()).embed_all(&texts, |n| told.push(n)).unwrap();
    assert!(told.len() < texts.len() && told.last() == Some(&texts.len()), "{told:?}");
    for ((one, other), text) in alone.iter().zip(&together).zip(&texts) {
        assert_eq!(one.shape(), other.shape());
        assert_eq!(one.shape()[0], if pooling == Pooling::None { text.tokens.len() } else { 1 });
        let error = relative_error(values(other), values(one));
        assert!(error <= 1e-5, "{pooling:?}, {} tokens: error {error:e}", text.tokens.len());
    }
}

#[test]
fn many_texts_give_each_its_own_vectors_on_host() {
    use Pooling::{Cls, Last, Mean, MeanSqrt, None, WeightedMean};
    for pooling in [None, Mean, Cls, Last, MeanSqrt, WeightedMean] {
        check_texts(pooling, || hosts(1));
        check_texts(pooling, || hosts(3));
    }
}

/// RoBERTa does not count padding tokens as positions: a padding token in a text gets the padding's own row, and the
/// tokens after it continue to count as if it were absent. The expected numbers, the first three of each position, are
/// from transformers 5.23.0's `last_hidden_state` of the fixture.
#[test]
fn a_padding_token_in_a_text_takes_no_position() {
    const EXPECTED: [[f32; 3]; 7] = [
        [0.409231, -1.249418, 1.066366],
        [0.372789, -1.632675, 0.872278],
        [0.055479, -1.886904, 0.287341],
        [0.372789, -1.632675, 0.872278],
        [0.372789, -1.632675, 0.872278],
        [0.726954, -1.915096, 0.379758],
        [0.372789, -1.632675, 0.872278],
    ];
    let model = Arc::new(Model::open(fixture("roberta")).unwrap());
    assert_eq!(model.info().padding, Some(5));
    let ids = vec![7, 5, 9, 5, 5, 11, 5];
    let whole = open(&model, 1, hosts(1)).embed(&ids).unwrap();
    let first: Vec<f32> = values(&whole).chunks(42).flat_map(|row| row[..3].to_vec()).collect();
    let error = relative_error(&first, EXPECTED.as_flattened());
    assert!(error <= 1e-5, "{error:e}");
    // In a batch with longer texts, to which it is padded, and with shorter ones.
    let texts = [ids.clone(), vec![5; 9], [ids.clone(), vec![12; 5], ids].concat(), vec![8], vec![5]];
    let texts: Vec<Text> = texts.into_iter().map(Text::from).collect();
    for devices in [1, 3] {
        let together = open(&model, 5, hosts(devices)).embed_all(&texts, |_| ()).unwrap();
        let mut alone = open(&model, 1, hosts(devices));
        for (text, together) in texts.iter().zip(&together) {
            let one = alone.embed(&text.tokens).unwrap();
            assert!(relative_error(values(together), values(&one)) <= 1e-5, "{:?}", text.tokens);
        }
    }
}

#[test]
fn many_texts_give_each_its_own_vectors_on_gpus() {
    let adapters = adapters();
    for world in [1, 3].into_iter().filter(|_| !adapters.is_empty()) {
        check_texts(Pooling::Mean, || mixed(&adapters, world));
        check_texts(Pooling::None, || mixed(&adapters, world));
    }
}

/// The sums that pooling weights give, against the definitions of the poolings.
#[test]
fn pooling_weights_are_what_they_are_called() {
    let rows = Pooling::WeightedMean.weights(4);
    assert_eq!(rows, [0.1, 0.2, 0.3, 0.4]);
    assert_eq!(Pooling::Mean.weights(4), [0.25; 4]);
    assert_eq!(Pooling::MeanSqrt.weights(4), [0.5; 4]);
    assert_eq!(Pooling::Cls.weights(3), [1.0, 0.0, 0.0]);
    assert_eq!(Pooling::Last.weights(3), [0.0, 0.0, 1.0]);
}

/// Prompts of different lengths that are answered together get the answers that each gets alone.
fn check_prompts(name: &str, devices: impl Fn() -> Vec<Box<dyn Device>>) {
    let model = Arc::new(Model::open(fixture(name)).unwrap());
    let expected = Expected::of(name);
    let long = expected.u32("ids_1");
    // For the fixture's own prompts there is a clear margin between the first and the second choice.
    let prompts = [expected.u32("ids_0"), long.clone(), long[..1].to_vec(), long[..long.len() / 2].to_vec()];
    let greedy = || Sampler::new(Sampling::greedy()).unwrap();
    let steps = expected.u32("greedy_0").len();
    let mut alone = open(&model, 1, devices());
    let alone: Vec<Vec<u32>> = prompts
        .iter()
        .map(|prompt| {
            alone.reset();
            let tokens = alone.generate(prompt, greedy(), &GenerateOptions::new(steps).ignore_end()).unwrap();
            tokens.collect::<Result<_, GenerateError>>().unwrap()
        })
        .collect();
    assert_eq!(alone[0], expected.u32("greedy_0"));
    let mut together = open(&model, prompts.len(), devices());
    // Twice, because nothing of the first round may remain.
    for _ in 0..2 {
        let mut answers = vec![Vec::new(); prompts.len()];
        let samplers = prompts.iter().map(|_| greedy()).collect();
        for answer in together.generate_all(&prompts, samplers, &GenerateOptions::new(steps).ignore_end()).unwrap() {
            let (prompt, token) = answer.unwrap();
            answers[prompt].push(token);
        }
        assert_eq!(answers, alone, "{name}");
    }
    // One prompt alone again, after the others.
    together.reset();
    let tokens = together.generate(&prompts[0], greedy(), &GenerateOptions::new(steps).ignore_end()).unwrap();
    assert_eq!(tokens.collect::<Result<Vec<_>, GenerateError>>().unwrap(), alone[0]);
}

#[test]
fn prompts_together_are_answered_as_alone_on_host() {
    for name in ["llama-uneven", "gpt2", "mistral", "qwen3-qknorm"] {
        check_prompts(name, || hosts(1));
        check_prompts(name, || hosts(3));
    }
}

#[test]
fn prompts_together_are_answered_as_alone_on_gpus() {
    let adapters = adapters();
    for adapter in &adapters {
        check_prompts("llama-uneven", || gpus(adapter, 2));
    }
    if !adapters.is_empty() {
        check_prompts("mistral", || mixed(&adapters, 3));
    }
}

#[test]
fn an_engine_refuses_more_prompts_than_it_was_opened_for() {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let mut engine = open(&model, 2, hosts(1));
    let sampler = || Sampler::new(Sampling::greedy()).unwrap();
    for (prompts, samplers) in [(3, 3), (2, 1), (0, 0)] {
        let prompts = vec![vec![1]; prompts];
        let refused =
            engine.generate_all(&prompts, vec![sampler(); samplers], &GenerateOptions::new(4).ignore_end()).map(|_| ());
        assert!(matches!(refused, Err(GenerateError::Session(SessionError::Input { .. }))), "{refused:?}");
    }
    let empty =
        engine.generate_all(&[vec![1], vec![]], vec![sampler(); 2], &GenerateOptions::new(4).ignore_end()).map(|_| ());
    assert!(matches!(empty, Err(GenerateError::EmptyPrompt)), "{empty:?}");
    // The longest prompt decides: the end of the context ends both answers.
    let answers = engine
        .generate_all(&[vec![1; 126], vec![2]], vec![sampler(); 2], &GenerateOptions::new(9).ignore_end())
        .unwrap();
    assert_eq!(answers.collect::<Result<Vec<_>, GenerateError>>().unwrap().len(), 2 * 3);
}

/// A model's weights with one element that is not a number.
struct Broken {
    model: Arc<Model>,
    weight: &'static str,
    value: f32,
}

impl Weights for Broken {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, fanfold::weights::SourceError> {
        let tensor = self.model.read(name, shape, region)?;
        let inside = region.0.iter().all(|range| range.contains(&1));
        if name != self.weight || !inside {
            return Ok(tensor);
        }
        let mut values = tensor.as_f32()?.to_vec();
        let at = region.0.iter().fold(0, |at, range| at * range.len() + 1 - range.start);
        values[at] = self.value;
        Ok(Tensor::f32(tensor.shape().to_vec(), values)?)
    }
}

fn check_broken(weight: &'static str, value: f32, node: &str, devices: Vec<Box<dyn Device>>) {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &ratios(devices.len())).unwrap();
    let broken = Arc::new(Broken { model: model.clone(), weight, value });
    let options = EngineOptions::default().context(64);
    let mut engine = Engine::with_weights(model, broken, &plan, devices, options, Arc::new(|_| ())).unwrap();
    match engine.feed(&[1, 2, 3]) {
        Err(GenerateError::NotFinite { output, node: found, .. }) => {
            assert_eq!((output.as_str(), found.as_str()), ("logits", node));
        }
        other => panic!("{other:?}"),
    }
    // The session goes on: the same request can be made again.
    assert!(matches!(engine.feed(&[1]), Err(GenerateError::NotFinite { .. })));
}

#[test]
fn the_node_where_numbers_end_is_named() {
    for world in [1, 3] {
        check_broken("model.layers.1.mlp.up_proj.weight", f32::NAN, "model.layers.1.mlp.up_proj", hosts(world));
        check_broken(
            "model.layers.0.self_attn.k_proj.weight",
            f32::INFINITY,
            "model.layers.0.self_attn.k_proj",
            hosts(world),
        );
    }
    for adapter in adapters() {
        check_broken("model.layers.1.mlp.up_proj.weight", f32::NAN, "model.layers.1.mlp.up_proj", gpus(&adapter, 2));
    }
}
