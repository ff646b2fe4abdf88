//! Every op on every GPU against the host, through the device trait, and what a device does beside computing.
//!
//! It names no op, except where a weight is split: the cases come from the ops themselves.

mod common;

use common::adapters;
use fanfold::device::DeviceError;
use fanfold::device::gpu::{AdapterInfo, GpuDevice, GpuOptions, Measured, Picks};
use fanfold::device::host::HostDevice;
use fanfold::device::{Counters, Device};
use fanfold::format::Format;
use fanfold::graph::{Graph, Source};
use fanfold::kernel::Numerics;
use fanfold::ops::sample::{Role, Sample, weight};
use fanfold::ops::{Attention, Linear, samples};
use fanfold::plan::NodeCut;
use fanfold::program::{Fused, Instr, LocalValue, Place, RankProgram, Size, WeightPart, WeightShard};
use fanfold::random::Random;
use fanfold::shape::{Dim, Env, Shape};
use fanfold::sharding::{Cut, Redistribute};
use fanfold::tensor::SymbolicRegion;
use fanfold::tensor::{DType, Region, Tensor, relative_error};
use fanfold::weights::Weights;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Weights as a device takes them.
fn shared(weights: &HashMap<String, Tensor>) -> Arc<dyn Weights> {
    Arc::new(weights.clone())
}

/// Many cases as one program: each is one node, and nothing is sharded.
struct Cases {
    program: RankProgram,
    weights: HashMap<String, Tensor>,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    instr: usize,
    output: usize,
    past: usize,
    writes: Vec<(usize, Tensor)>,
}

impl Cases {
    fn new() -> Cases {
        let program = RankProgram {
            rank: 0,
            numerics: None,
            values: Vec::new(),
            buffers: Vec::new(),
            weights: Vec::new(),
            states: Vec::new(),
            instrs: Vec::new(),
        };
        Cases { program, weights: HashMap::new(), cases: Vec::new() }
    }

    fn value(&mut self, name: &str, shape: &Shape, dtype: DType, place: Option<Place>) -> usize {
        let place = place.unwrap_or_else(|| {
            self.program.buffers.push(Size::of(shape));
            Place::Buffer(self.program.buffers.len() - 1)
        });
        self.program.values.push(LocalValue { name: name.to_string(), shape: shape.clone(), dtype, place });
        self.program.values.len() - 1
    }

    fn add(&mut self, name: &str, sample: Sample) {
        let prefix = format!("{name} #{}", self.cases.len());
        let mut graph = Graph::new();
        let mut ids = Vec::new();
        for (i, (role, tensor)) in sample.inputs.iter().enumerate() {
            let shape: Shape = tensor.shape().iter().map(|&n| Dim::Fixed(n)).collect();
            let name = format!("{prefix}.{i}");
            ids.push(match role {
                Role::Input => graph.input(&name, shape, tensor.dtype()).unwrap(),
                Role::Weight(format) => graph.weight(&name, shape, *format).unwrap(),
                Role::State => graph.state(&name, shape).unwrap(),
            });
        }
        let out = graph.node(&prefix, sample.op.clone(), &ids).unwrap();
        let (mut inputs, mut writes) = (Vec::new(), Vec::new());
        for (i, (&id, (_, tensor))) in ids.iter().zip(&sample.inputs).enumerate() {
            let value = graph.value(id);
            let place = match value.source {
                Source::Weight(format) => {
                    self.weights.insert(value.name.clone(), tensor.clone());
                    self.program.weights.push(WeightShard {
                        name: value.name.clone(),
                        shape: value.shape.clone(),
                        format,
                        layout: sample.op.operand(i).layout(),
                        part: WeightPart::Region(SymbolicRegion::default()),
                    });
                    Some(Place::Weight(self.program.weights.len() - 1))
                }
                Source::State => {
                    self.program.states.push(value.shape.clone());
                    Some(Place::State(self.program.states.len() - 1))
                }
                _ => None,
            };
            let index = self.value(&value.name, &value.shape, value.dtype, place);
            if value.format().is_none() {
                self.program.instrs.push(Instr::Input { name: value.name.clone(), value: index });
                writes.push((index, tensor.clone()));
            }
            inputs.push(index);
        }
        let alias = sample.op.in_place().or(sample.op.is_view().then_some(0));
        let place = alias.map(|i| self.program.values[inputs[i]].place);
        let output = self.value(&prefix, &graph.value(out).shape, DType::F32, place);
        let instr = self.program.instrs.len();
        self.program.instrs.push(Instr::Compute {
            node: prefix.clone(),
            op: sample.op.clone(),
            inputs,
            output,
            extents: graph.nodes()[0].rule.extents(None, 0),
            fused: Fused::Alone,
        });
        self.program.instrs.push(Instr::Output {
            name: prefix.clone(),
            value: output,
            region: SymbolicRegion::default(),
        });
        self.cases.push(Case { name: prefix, instr, output, past: sample.past, writes });
    }

    fn load(&self, device: &mut dyn Device) {
        device.load(Arc::new(self.program.clone()), &env(0).into(), &shared(&self.weights), &|_| {}).unwrap();
    }

    fn run(&self, device: &mut dyn Device) -> Vec<Vec<u8>> {
        let mut outputs = Vec::new();
        for case in &self.cases {
            device.begin(&env(case.past)).unwrap();
            for (value, tensor) in &case.writes {
                device.write(*value, tensor.bytes()).unwrap();
            }
            device.execute(case.instr).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let mut bytes = Vec::new();
            device
                .read(case.output, &mut |found| bytes.extend_from_slice(found))
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            outputs.push(bytes);
        }
        outputs
    }
}

fn env(past: usize) -> Env {
    Env { batch: 1, seq: 1, keep: 1, past, capacity: 64 }
}

/// The counters of `now` minus those of `before` for things that a repeated call must not do.
fn made(now: Counters, before: Counters) -> [u64; 3] {
    [now.pipelines - before.pipelines, now.buffers - before.buffers, now.host_ops - before.host_ops]
}

fn compare(info: &AdapterInfo, cases: &Cases, options: &GpuOptions) {
    // The device lowers its bound on submissions when one takes long, as on a busy machine. Without a bound to lower, the
    // number of submissions does not depend on time.
    let options = GpuOptions { submission: u64::MAX, ..options.clone() };
    let (mut host, mut gpu) = (HostDevice::new(), GpuDevice::open(info, &options).unwrap());
    cases.load(&mut host);
    cases.load(&mut gpu);
    let expected = cases.run(&mut host);
    let found = cases.run(&mut gpu);
    for ((case, found), expected) in cases.cases.iter().zip(&found).zip(&expected) {
        let (found, expected): (&[f32], &[f32]) = (bytemuck::cast_slice(found), bytemuck::cast_slice(expected));
        let error = relative_error(found, expected);
        assert!(error <= 1e-5, "{} on {info}: error {error:e}\n{found:?}\n{expected:?}", case.name);
    }
    let first = gpu.counters();
    assert_eq!(cases.run(&mut gpu), found, "a repeated call gives other bits");
    let second = gpu.counters();
    assert_eq!(made(second, first), [0; 3]);
    cases.run(&mut gpu);
    let third = gpu.counters();
    assert_eq!(made(third, second), [0; 3]);
    let done = |a: Counters, b: Counters| {
        [a.dispatches - b.dispatches, a.submissions - b.submissions, a.uploads - b.uploads, a.reads - b.reads]
    };
    assert_eq!(done(third, second), done(second, first));
    assert_eq!(second.submissions - first.submissions, cases.cases.len() as u64, "one submission to a call");
}

#[test]
fn every_op_agrees_with_the_host() {
    let mut cases = Cases::new();
    for (name, make) in samples() {
        for seed in 0..12 {
            cases.add(name, make(&mut Random::new(seed)));
        }
    }
    for info in adapters() {
        for numerics in [Numerics::Sequential, Numerics::Lanes] {
            compare(&info, &cases, &GpuOptions { numerics: Some(numerics), ..GpuOptions::default() });
        }
    }
}

/// Every order of sums has one result, whatever blocks a product is computed in: rows of a call have the same bits as
/// the same rows in a smaller call with that order.
#[test]
fn blocks_do_not_change_the_order_of_sums() {
    let mut random = Random::new(3);
    let (n, k) = (150, 300);
    let x = random.tensor(DType::F32, &[1, 130, k]);
    let w = random.tensor(DType::F16, &[n, k]);
    for info in adapters() {
        for numerics in [Numerics::Sequential, Numerics::Lanes] {
            let rows = |rows: usize| {
                let mut cases = Cases::new();
                let part = x.slice(&Region(vec![0..1, 0..rows, 0..k])).unwrap();
                cases.add("Linear", Sample::new(Linear, vec![(Role::Input, part), weight(w.clone())]));
                let options = GpuOptions { numerics: Some(numerics), ..GpuOptions::default() };
                let mut gpu = GpuDevice::open(&info, &options).unwrap();
                cases.load(&mut gpu);
                cases.run(&mut gpu).remove(0)
            };
            // With `Lanes`, calls of up to eight rows have one order, larger calls another.
            let small = rows(8);
            for few in [1, 2, 3, 4, 5] {
                assert!(small.starts_with(&rows(few)), "{info}, {numerics}: {few} rows of 8");
            }
            let large = rows(130);
            for few in [9, 64, 65] {
                assert!(large.starts_with(&rows(few)), "{info}, {numerics}: {few} rows of 130");
            }
        }
    }
}

/// The order of sums stands in the program, and comes before what suits the adapter.
#[test]
fn the_program_decides_on_the_order_of_sums() {
    let mut random = Random::new(10);
    let mut cases = Cases::new();
    let x = (Role::Input, random.tensor(DType::F32, &[1, 3, 300]));
    cases.add("Linear", Sample::new(Linear, vec![x, weight(random.tensor(DType::F16, &[40, 300]))]));
    for mut info in adapters() {
        let mut run = |preferred: Numerics, written: Option<Numerics>| {
            let options = GpuOptions { numerics: Some(preferred), ..GpuOptions::default() };
            let mut gpu = GpuDevice::open(&info, &options).unwrap();
            cases.program.numerics = written;
            cases.load(&mut gpu);
            cases.run(&mut gpu).remove(0)
        };
        let [sequential, lanes] = [Numerics::Sequential, Numerics::Lanes].map(|numerics| run(numerics, None));
        assert!(sequential != lanes, "{info}: the case tells the orders apart");
        assert!(run(Numerics::Sequential, Some(Numerics::Lanes)) == lanes, "{info}");
        assert!(run(Numerics::Lanes, Some(Numerics::Sequential)) == sequential, "{info}");
        // As if the adapter's workgroups were too small for the other order.
        info.numerics = vec![Numerics::Sequential];
        let mut gpu = GpuDevice::open(&info, &GpuOptions::default()).unwrap();
        cases.program.numerics = Some(Numerics::Lanes);
        let loaded = gpu.load(Arc::new(cases.program.clone()), &env(0).into(), &shared(&cases.weights), &|_| {});
        assert!(matches!(&loaded, Err(DeviceError::Refused { reason, .. }) if reason.contains("lanes")), "{loaded:?}");
    }
}

/// A device may pick any of the schedules that an op offers: all give the same bits.
#[test]
fn schedules_of_an_op_give_the_same_bits() {
    let mut random = Random::new(8);
    let mut cases = Cases::new();
    for (rows, n, k, dtype) in
        [(1, 70, 300, DType::F16), (3, 33, 64, DType::BF16), (7, 40, 96, DType::F32), (130, 140, 40, DType::F16)]
    {
        for format in [Format::from(dtype), Format::Q8_0].into_iter().filter(|format| k % format.block() == 0) {
            let x = (Role::Input, random.tensor(DType::F32, &[1, rows, k]));
            let w = (Role::Weight(format), random.tensor(dtype, &[n, k]));
            cases.add("Linear", Sample::new(Linear, vec![x, w]));
        }
    }
    for info in adapters() {
        for numerics in [Numerics::Sequential, Numerics::Lanes] {
            let run = |number: usize| {
                let schedules = Picks::Number(number);
                let options = GpuOptions { numerics: Some(numerics), schedules, ..GpuOptions::default() };
                let mut gpu = GpuDevice::open(&info, &options).unwrap();
                cases.load(&mut gpu);
                (cases.run(&mut gpu), gpu.counters().pipelines)
            };
            let (guess, compiled) = run(0);
            assert!(compiled > 0);
            // No op offers more than eight. Beyond the last one the last is run, so that the numbers cover all of each case.
            for number in 1..8 {
                assert!(
                    run(number).0 == guess,
                    "{info}, {numerics}: schedule {number} gives other bits than the guess"
                );
            }
        }
    }
}

/// What was measured is data: a device that is given it runs the schedules that were the fastest, and gives the same bits.
#[test]
fn a_tuned_device_gives_the_bits_of_the_guess() {
    let mut random = Random::new(9);
    let mut cases = Cases::new();
    for (rows, n, k) in [(2, 64, 128), (4, 64, 128), (20, 64, 128)] {
        let x = (Role::Input, random.tensor(DType::F32, &[1, rows, k]));
        cases.add("Linear", Sample::new(Linear, vec![x, weight(random.tensor(DType::F16, &[n, k]))]));
    }
    for info in adapters() {
        let mut guess = GpuDevice::open(&info, &GpuOptions::default()).unwrap();
        cases.load(&mut guess);
        let (expected, mut steps) = (cases.run(&mut guess), Vec::new());
        let mut measured = guess.tune(&[env(0)], &mut |done, count| steps.push((done, count))).unwrap();
        assert_eq!(steps, [(1, 3), (2, 3), (3, 3)]);
        assert!(measured.iter().all(|case| case.schedules.len() > 1 && case.fastest().unwrap().nanoseconds > 0));
        // It survives the file in which it is kept.
        let text = serde_json::to_string(&measured).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Measured>>(&text).unwrap(), measured);
        // As if the last schedule of each were the fastest.
        for case in &mut measured {
            case.schedules.last_mut().unwrap().nanoseconds = 0;
        }
        let run = |measured: Vec<Measured>| {
            let options = GpuOptions { schedules: Picks::Measured(Arc::new(measured)), ..GpuOptions::default() };
            let mut gpu = GpuDevice::open(&info, &options).unwrap();
            cases.load(&mut gpu);
            assert!(cases.run(&mut gpu) == expected, "{info}");
            gpu.counters().pipelines
        };
        let tuned = run(measured.clone());
        assert!(tuned < guess.counters().pipelines, "{info}: the last schedule of each has the same kernel");
        // What was measured of other shaders, or of a schedule that is gone, is not used.
        let stale = |change: &dyn Fn(&mut Measured)| {
            let mut changed = measured.clone();
            changed.iter_mut().for_each(change);
            run(changed)
        };
        let three = stale(&|case| case.shaders = "of another version".into());
        assert!(three > tuned);
        assert_eq!(stale(&|case| case.schedules.last_mut().unwrap().name = "gone".into()), three);
    }
}

/// Attention over a long state is computed in parts, and a cut over its heads leaves every bit as it is.
#[test]
fn parts_of_a_long_state_do_not_depend_on_the_share() {
    let mut random = Random::new(5);
    let (heads, kv_heads, d, past) = (7, 7, 12, 700);
    let op = Attention { heads, kv_heads, scale: 0.3, causal: true, window: None, softcap: None };
    let mut part = |positions: usize| random.tensor(DType::F32, &[1, positions, heads * d]);
    let inputs = vec![(Role::Input, part(1)), (Role::Input, part(past + 1)), (Role::Input, part(past + 1))];
    let sample = Sample { past, ..Sample::new(op, inputs) };
    let (graph, weights, inputs, env) = common::one_node(&sample);
    let node = graph.nodes()[0].name.clone();
    for info in adapters() {
        for numerics in [Numerics::Sequential, Numerics::Lanes] {
            let run = |ends: &[usize]| {
                let starts = [&[0], &ends[..ends.len() - 1]].concat();
                let cut = Cut::new(starts.iter().zip(ends).map(|(&start, &end)| start..end).collect());
                let cut = NodeCut { node: node.clone(), factor: "h".into(), cut };
                let plan = common::plan_of(&graph, Some(cut), ends.len());
                let options = GpuOptions { numerics: Some(numerics), ..GpuOptions::default() };
                let open = |_| Box::new(GpuDevice::open(&info, &options).unwrap()) as Box<dyn Device>;
                let devices = (0..ends.len()).map(open).collect();
                common::run_plan(&graph, &weights, &inputs, env, &plan, devices)
            };
            assert_eq!(run(&[7]), run(&[4, 4, 7]), "{info}, {numerics}");
        }
    }
}

#[test]
fn a_wide_weight_is_split_over_bindings() {
    let mut cases = Cases::new();
    let wide = ["Linear", "Gather", "ExpertsUp", "ExpertsDown"];
    for (name, make) in samples().into_iter().filter(|(name, _)| wide.contains(name)) {
        for seed in 100..130 {
            cases.add(name, make(&mut Random::new(seed)));
        }
    }
    for info in adapters() {
        compare(&info, &cases, &GpuOptions { max_binding: Some(1700), ..GpuOptions::default() });
        let mut gpu = GpuDevice::open(&info, &GpuOptions { max_binding: Some(16), ..GpuOptions::default() }).unwrap();
        let refused = gpu.load(Arc::new(cases.program.clone()), &env(0).into(), &shared(&cases.weights), &|_| {});
        assert!(matches!(refused, Err(DeviceError::OutOfMemory { .. })), "{refused:?}");
    }
}

#[test]
fn a_large_weight_is_loaded_block_by_block() {
    // 18 MB of f32, and 17 MB of bf16 on the device, in rows that are padded: each needs more than the two buffers of
    // staging at a time.
    let (mut cases, mut random) = (Cases::new(), Random::new(7));
    for (dtype, n) in [(DType::F32, 9_001), (DType::BF16, 17_003)] {
        let x = (Role::Input, random.tensor(DType::F32, &[1, 1, 501]));
        cases.add("Linear", Sample::new(Linear, vec![x, weight(random.tensor(dtype, &[n, 501]))]));
    }
    for info in adapters() {
        compare(&info, &cases, &GpuOptions::default());
        compare(&info, &cases, &GpuOptions { max_binding: Some(5_000_000), ..GpuOptions::default() });
        let mut gpu = GpuDevice::open(&info, &GpuOptions::default()).unwrap();
        cases.load(&mut gpu);
        let Counters { weight_bytes, staging_bytes, .. } = gpu.counters();
        assert!(weight_bytes > 34_000_000 && staging_bytes == 16 << 20, "{weight_bytes} through {staging_bytes}");
        assert!(
            cases.program.memory(&env(0).into()).staging >= staging_bytes,
            "it is counted before a device is opened"
        );
    }
}

/// `y = x w`, with `y` also marked as exchanged; `[seq, 512]` for any seq.
fn layer(rows: usize, k: usize) -> Cases {
    let mut random = Random::new(1);
    let mut cases = Cases::new();
    let inputs =
        vec![(Role::Input, random.tensor(DType::F32, &[1, rows, k])), weight(random.tensor(DType::BF16, &[k, k]))];
    cases.add("layer", Sample::new(Linear, inputs));
    let output = cases.cases[0].output;
    cases.program.instrs.push(Instr::Exchange {
        node: "sum".into(),
        kind: Redistribute::AllReduce,
        from: output,
        to: 0,
        send: Vec::new(),
        receive: Vec::new(),
    });
    cases
}

#[test]
fn writes_and_zeros_are_in_order_with_dispatches() {
    let mut cases = layer(3, 40);
    let zero = cases.program.instrs.len();
    cases.program.instrs.push(Instr::Zero { output: 0 });
    for info in adapters() {
        let mut gpu = GpuDevice::open(&info, &GpuOptions::default()).unwrap();
        cases.load(&mut gpu);
        let (case, ones) = (&cases.cases[0], vec![1f32; 120]);
        let expected = cases.run(&mut gpu).remove(0);
        let mut bytes = Vec::new();
        // Each write or zero follows a dispatch whose result it must not affect. A single staging slot cannot hold all
        // of them.
        for _ in 0..20 {
            gpu.begin(&env(0)).unwrap();
            gpu.write(0, case.writes[0].1.bytes()).unwrap();
            gpu.execute(case.instr).unwrap();
            gpu.write(0, bytemuck::cast_slice(&ones)).unwrap();
            gpu.execute(zero).unwrap();
        }
        gpu.read(case.output, &mut |found| bytes = found.to_vec()).unwrap();
        assert_eq!(bytes, expected);
        gpu.execute(case.instr).unwrap();
        gpu.read(case.output, &mut |found| bytes = found.to_vec()).unwrap();
        assert!(bytes.iter().all(|&b| b == 0));
        let before = gpu.counters();
        gpu.begin(&env(5)).unwrap();
        gpu.write(0, case.writes[0].1.bytes()).unwrap();
        let after = gpu.counters();
        assert_eq!((after.uploads - before.uploads, after.upload_bytes - before.upload_bytes), (1, 16));
        assert_eq!(after.exchange_writes - before.exchange_writes, 1);
    }
}

#[test]
fn misuse_is_an_error_of_its_own_type() {
    let cases = layer(2, 8);
    for info in adapters() {
        let mut gpu = GpuDevice::open(&info, &GpuOptions::default()).unwrap();
        let refused = |result: Result<(), DeviceError>| {
            assert!(matches!(&result, Err(DeviceError::Refused { .. })), "{result:?}");
        };
        refused(gpu.begin(&env(0)));
        cases.load(&mut gpu);
        refused(gpu.execute(cases.cases[0].instr));
        refused(gpu.begin(&Env { batch: 2, ..env(0) }));
        gpu.begin(&env(0)).unwrap();
        refused(gpu.write(0, &[0; 4]));
        refused(gpu.read(1, &mut |_| ()));
        // None of this has damaged the device.
        cases.run(&mut gpu);

        let mut wide = layer(2, 8);
        wide.program.states.push(vec![Dim::Fixed(1 << 20), Dim::Fixed(1 << 20)]);
        let mut gpu = GpuDevice::open(&info, &GpuOptions::default()).unwrap();
        let result = gpu.load(Arc::new(wide.program), &env(0).into(), &shared(&wide.weights), &|_| {});
        assert!(matches!(result, Err(DeviceError::OutOfMemory { .. })), "{result:?}");

        let missing = HashMap::<String, Tensor>::new();
        assert!(gpu.load(Arc::new(cases.program.clone()), &env(0).into(), &shared(&missing), &|_| {}).is_err());

        let gone = AdapterInfo { name: "no such card".into(), ..info.clone() };
        let result = GpuDevice::open(&gone, &GpuOptions::default()).map(|_| ());
        assert!(matches!(result, Err(DeviceError::NotFound { .. })), "{result:?}");
    }
}

#[test]
fn a_wait_ends_at_the_deadline() {
    let cases = layer(512, 1024);
    for info in adapters() {
        let options = GpuOptions { deadline: Duration::ZERO, ..GpuOptions::default() };
        let mut gpu = GpuDevice::open(&info, &options).unwrap();
        // Loading may have to wait for staging, and then ends in the same way.
        let result = gpu
            .load(Arc::new(cases.program.clone()), &env(0).into(), &shared(&cases.weights), &|_| {})
            .and_then(|()| gpu.begin(&env(0)))
            .and_then(|()| gpu.execute(cases.cases[0].instr))
            .and_then(|()| gpu.read(cases.cases[0].output, &mut |_| ()));
        assert!(matches!(result, Err(DeviceError::Deadline { .. })), "{result:?}");
        let again = gpu.begin(&env(0));
        assert!(matches!(again, Err(DeviceError::Deadline { .. })), "{again:?}");
    }
}
