//! What an exchange between two devices of one adapter costs: a sum over both of 16 KiB and of 64 KiB, against the same written by
//! hand with mapped buffers, and against the time from a submission to its end.
//!
//! `cargo bench --bench exchange -- [ADAPTER]`. fanfold's time is that of a chain of products which two devices add up, less the same
//! chain on one device, so that the products fall out. All run in turn, after one round that warms caches; numbers are medians of the
//! rounds with their range, the ratios those of each round. Nothing here is a test.

mod common;

use common::open_by_hand;
use crossbeam::channel::{Receiver, Sender, unbounded};
use fanfold::device::Device;
use fanfold::device::gpu::{AdapterInfo, Backend, GpuDevice, GpuOptions, adapters};
use fanfold::format::Format;
use fanfold::graph::Graph;
use fanfold::measure::Repeated;
use fanfold::ops::Linear;
use fanfold::plan::Plan;
use fanfold::program::lower;
use fanfold::random::Random;
use fanfold::session::{Options, Session, Tensors};
use fanfold::shape::Env;
use fanfold::tensor::DType;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wgpu::{BufferUsages, MapMode, PollType};

const ROUNDS: usize = 9;

/// Sums of a chain, or by hand one after another.
const SUMS: usize = 32;

/// The length of what the ranks share of each link: so short that its product costs next to nothing.
const NARROW: usize = 8;

/// A chain of `SUMS` sums of `width` elements on `ranks` devices: each link makes few numbers of many, and many of few. The second
/// product is cut along what it adds up.
fn chain(info: &AdapterInfo, width: usize, ranks: usize) -> impl FnMut() -> f64 {
    let mut graph = Graph::new();
    let mut x = graph.input("x", [1.into(), 1.into(), width.into()], DType::F32).unwrap();
    for i in 0..SUMS {
        let down = graph.weight(&format!("down{i}.w"), [NARROW.into(), width.into()], Format::F32).unwrap();
        let up = graph.weight(&format!("up{i}.w"), [width.into(), NARROW.into()], Format::F32).unwrap();
        let narrow = graph.node(&format!("down{i}"), Linear, &[x, down]).unwrap();
        x = graph.node(&format!("up{i}"), Linear, &[narrow, up]).unwrap();
    }
    graph.output("y", x).unwrap();
    let whole = Plan::whole(&graph, ranks);
    let plan =
        (0..SUMS).fold(whole, |plan, i| if ranks > 1 { plan.cut(&format!("up{i}"), "k", [1.0, 1.0]) } else { plan });
    let program = lower(&graph, &plan.build().unwrap()).unwrap();
    let open = || Box::new(GpuDevice::open(info, &GpuOptions::default()).unwrap()) as Box<dyn Device>;
    let devices = (0..ranks).map(|_| open()).collect();
    let env = Env::prompt(1);
    let options = Options::new(env).deadline(Duration::from_secs(60));
    let mut session = Session::open(program, devices, Arc::new(Repeated), options, Arc::new(|_| ())).unwrap();
    let inputs: Tensors = [("x".to_string(), Random::new(1).tensor(DType::F32, &[1, 1, width]))].into();
    move || {
        let started = Instant::now();
        session.run(env, inputs.clone()).unwrap();
        started.elapsed().as_secs_f64()
    }
}

/// A device with buffers of `bytes`: one of its own, and two that the host maps.
struct ByHand {
    device: wgpu::Device,
    queue: wgpu::Queue,
    value: wgpu::Buffer,
    sent: wgpu::Buffer,
    received: wgpu::Buffer,
    polls: bool,
}

impl ByHand {
    fn open(info: &AdapterInfo, bytes: u64) -> ByHand {
        let (device, queue) = open_by_hand(info);
        let buffer = |usage, mapped_at_creation| {
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation })
        };
        let value = buffer(BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST, false);
        let sent = buffer(BufferUsages::MAP_READ | BufferUsages::COPY_DST, false);
        let received = buffer(BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC, true);
        ByHand { value, sent, received, device, queue, polls: !info.is_software() }
    }

    /// Waits until `buffer` is mapped: on a GPU in a loop, as fanfold does; a software driver needs the processor itself.
    fn map(&self, buffer: &wgpu::Buffer, mode: MapMode) {
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        buffer.map_async(mode, .., move |result| told.store(result.is_ok(), Ordering::Release));
        while !done.load(Ordering::Acquire) {
            let poll = if self.polls { PollType::Poll } else { PollType::wait_indefinitely() };
            self.device.poll(poll).unwrap();
        }
    }

    /// Copies what the device has to the host and waits for it; with `received`, after what the host has written.
    fn submit(&self, received: bool) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        if received {
            encoder.copy_buffer_to_buffer(&self.received, 0, &self.value, 0, self.value.size());
        }
        encoder.copy_buffer_to_buffer(&self.value, 0, &self.sent, 0, self.value.size());
        self.queue.submit([encoder.finish()]);
        self.map(&self.sent, MapMode::Read);
    }

    /// Adds up `SUMS` times what this device and its peer hold, and leaves the sum on both.
    fn sums(&self, to: &Sender<Vec<f32>>, from: &Receiver<Vec<f32>>) {
        for i in 0..SUMS {
            self.submit(i > 0);
            let own: Vec<f32> = bytemuck::cast_slice(&self.sent.get_mapped_range(..).unwrap()).to_vec();
            self.sent.unmap();
            if i > 0 {
                self.map(&self.received, MapMode::Write);
            }
            to.send(own.clone()).unwrap();
            let other = from.recv().unwrap();
            let sum: Vec<f32> = own.iter().zip(&other).map(|(a, b)| a + b).collect();
            let mut view = self.received.get_mapped_range_mut(..).unwrap();
            view.slice(..).copy_from_slice(bytemuck::cast_slice(&sum));
            drop(view);
            self.received.unmap();
        }
        self.submit(true);
        self.sent.unmap();
        self.map(&self.received, MapMode::Write);
    }
}

/// Seconds of one sum of two devices by hand.
fn by_hand(pair: &[ByHand; 2]) -> f64 {
    let started = Instant::now();
    let ((a, from_a), (b, from_b)) = (unbounded(), unbounded());
    std::thread::scope(|scope| {
        scope.spawn(|| pair[0].sums(&a, &from_b));
        pair[1].sums(&b, &from_a);
    });
    started.elapsed().as_secs_f64() / SUMS as f64
}

/// Seconds from a submission to its end, on one device.
fn submitted(device: &ByHand) -> f64 {
    let started = Instant::now();
    for _ in 0..SUMS {
        device.submit(false);
        device.sent.unmap();
    }
    started.elapsed().as_secs_f64() / SUMS as f64
}

fn main() {
    // Cargo adds an option of its own.
    let chosen: Option<usize> = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let vulkan = |info: &AdapterInfo| info.backend == Backend::Vulkan && chosen.is_none_or(|index| info.index == index);
    for info in adapters().into_iter().filter(vulkan) {
        println!("{info}");
        for width in [4096, 16_384] {
            let (mut one, mut two) = (chain(&info, width, 1), chain(&info, width, 2));
            let pair = [(); 2].map(|()| ByHand::open(&info, 4 * width as u64));
            let mut rounds: Vec<[f64; 3]> = (0..=ROUNDS)
                .map(|_| {
                    let single = one();
                    [(two() - single) / SUMS as f64, by_hand(&pair), submitted(&pair[0])]
                })
                .collect();
            // The first round compiles kernels.
            rounds.remove(0);
            let shown = |of: &dyn Fn(&[f64; 3]) -> f64, digits: usize| {
                let mut values: Vec<f64> = rounds.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                format!("{:.digits$} ({:.digits$} to {:.digits$})", values[ROUNDS / 2], values[0], values[ROUNDS - 1])
            };
            println!("  a sum of {} KiB over two devices, in microseconds", width * 4 / 1024);
            println!("    fanfold             {}", shown(&|r| r[0] * 1e6, 0));
            println!("    by hand             {}", shown(&|r| r[1] * 1e6, 0));
            println!("    submission to end   {}", shown(&|r| r[2] * 1e6, 0));
            println!(
                "    fanfold over by hand {}, over a submission {}",
                shown(&|r| r[0] / r[1], 2),
                shown(&|r| r[0] / r[2], 2)
            );
        }
    }
}
