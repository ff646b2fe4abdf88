//! Loading weights from a file into a device's memory, against the least that could be done: reading the file and copying it
//! into mapped buffers.
//!
//! `cargo bench --bench loading -- [ADAPTER]`. Both read one file of 256 MiB, which the system keeps in its cache, in turn. Times are
//! medians of the rounds; the ratio is of each round, with its range. Nothing here is a test.

mod common;

use common::open_by_hand;
use fanfold::device::Device;
use fanfold::device::gpu::{AdapterInfo, Backend, GpuDevice, GpuOptions, adapters};
use fanfold::format::Format;
use fanfold::graph::Graph;
use fanfold::import::StoredWeights;
use fanfold::ops::Linear;
use fanfold::plan::Plan;
use fanfold::program::{RankProgram, lower};
use fanfold::shape::{Dim, Env};
use fanfold::tensor::DType;
use fanfold::weights::Weights;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 9;

/// The weights: so many matrices of this shape in f16, 16 MiB each.
const MATRICES: usize = 16;
const SHAPE: [usize; 2] = [4096, 2048];
const BYTES: usize = SHAPE[0] * SHAPE[1] * 2;

/// Bytes that are read at a time where a file is copied by hand.
const CHUNK: usize = 1 << 20;

fn name(i: usize) -> String {
    format!("w{i:02}")
}

/// Writes the weights as a safetensors file; returns where its elements begin.
fn write(path: &Path) -> u64 {
    let entry = |i: usize| {
        let (start, end) = (i * BYTES, (i + 1) * BYTES);
        format!("\"{}\":{{\"dtype\":\"F16\",\"shape\":{SHAPE:?},\"data_offsets\":[{start},{end}]}}", name(i))
    };
    let header = format!("{{{}}}", (0..MATRICES).map(entry).collect::<Vec<_>>().join(","));
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let elements: Vec<u8> = (0..BYTES).map(|i| (i % 2 * 0x38 + i / 2 % 8) as u8).collect();
    (0..MATRICES).for_each(|_| file.write_all(&elements).unwrap());
    file.flush().unwrap();
    8 + header.len() as u64
}

/// A program that holds all the weights: products with each.
fn program() -> RankProgram {
    let mut graph = Graph::new();
    let x = graph.input("x", [Dim::from(1), SHAPE[1].into()], DType::F32).unwrap();
    for i in 0..MATRICES {
        let w = graph.weight(&name(i), SHAPE.map(Dim::from), Format::F16).unwrap();
        let y = graph.node(&format!("y{i}"), Linear, &[x, w]).unwrap();
        graph.output(&format!("y{i}"), y).unwrap();
    }
    lower(&graph, &Plan::whole(&graph, 1).build().unwrap()).unwrap().ranks.remove(0)
}

/// Seconds in which fanfold loads the weights onto a device that is open.
fn loaded(info: &AdapterInfo, program: &Arc<RankProgram>, path: &Path) -> f64 {
    let mut device = GpuDevice::open(info, &GpuOptions::default()).unwrap();
    let weights: Arc<dyn Weights> = Arc::new(StoredWeights::open(&[path]).unwrap());
    let limits = Env::prompt(1).into();
    let started = Instant::now();
    device.load(program.clone(), &limits, &weights, &|_| {}).unwrap();
    // A call ends only when the weights are there.
    device.begin(&Env::prompt(1)).unwrap();
    let output = program.values.iter().position(|value| value.name == "y0").unwrap();
    device.read(output, &mut |_| {}).unwrap();
    started.elapsed().as_secs_f64()
}

/// Seconds in which the file is read and copied into mapped buffers of a device that is open.
fn by_hand(info: &AdapterInfo, path: &Path, data: u64) -> f64 {
    let (device, queue) = open_by_hand(info);
    let started = Instant::now();
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(data)).unwrap();
    let mut chunk = vec![0; CHUNK];
    let mut buffers = Vec::new();
    for _ in 0..MATRICES {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: BYTES as u64,
            // Host memory that the device can copy from; nothing is copied to its own.
            usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: true,
        });
        let mut view = buffer.get_mapped_range_mut(..).unwrap();
        for at in (0..BYTES).step_by(CHUNK) {
            file.read_exact(&mut chunk).unwrap();
            view.slice(at..at + CHUNK).copy_from_slice(&chunk);
        }
        drop(view);
        buffer.unmap();
        buffers.push(buffer);
    }
    queue.submit([]);
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    started.elapsed().as_secs_f64()
}

fn main() {
    // Cargo adds an option of its own.
    let chosen: Option<usize> = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let data = write(&path);
    let program = Arc::new(program());
    let vulkan = |info: &AdapterInfo| info.backend == Backend::Vulkan && chosen.is_none_or(|index| info.index == index);
    for info in adapters().into_iter().filter(vulkan) {
        println!("{info}");
        let mut rounds: Vec<(f64, f64)> =
            (0..=ROUNDS).map(|_| (loaded(&info, &program, &path), by_hand(&info, &path, data))).collect();
        // The first round warms caches.
        rounds.remove(0);
        let sorted = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (ours, theirs, ratio) = (sorted(&|r| r.0), sorted(&|r| r.1), sorted(&|r| r.1 / r.0));
        let gigabytes = (MATRICES * BYTES) as f64 / 1e9;
        let rate = |seconds: &[f64]| gigabytes / seconds[ROUNDS / 2];
        println!("  fanfold {:.2} GB/s, read and copied by hand {:.2} GB/s", rate(&ours), rate(&theirs));
        println!("  ratio {:.2} ({:.2} to {:.2})", ratio[ROUNDS / 2], ratio[0], ratio[ROUNDS - 1]);
    }
}
