//! How kernels for GPUs read weights, keys and values, shown without a GPU: each load of a kernel is recorded on a software driver, with the lane
//! that made it and the address. Every address must be inside the tensor, and the 32 lanes that a GPU runs together must use
//! nearly all bytes of the memory sectors that they touch.

#[path = "../benches/common/mod.rs"]
mod by_hand;
mod common;

use by_hand::open_by_hand;
use common::adapters;
use fanfold::device::gpu::Backend;
use fanfold::format::Format;
use fanfold::kernel::{Binding, Kernel, Launch, Layout, Numerics, weight_rows};
use fanfold::ops::{Attention, LaunchContext, Linear, Operator};
use fanfold::shape::{Dim, Env};
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;

/// Bytes of a sector, the smallest piece that a GPU's memory delivers.
const SECTOR: u64 = 32;

/// Lanes that run together on the GPUs with the widest subgroups in common use.
const TOGETHER: usize = 32;

/// Loads that a lane can record.
const MOST: usize = 4096;

/// The launches of the schedules of a product of `rows` rows with a weight `[n, k]` in `format`, each with its schedule's name, the best
/// guess first.
fn products(rows: usize, n: usize, k: usize, format: Format) -> Vec<(String, Launch)> {
    let inputs = [vec![1, rows, k], vec![n, k]];
    let shapes = inputs.each_ref().map(|shape| shape.iter().map(|&d| Dim::Fixed(d)).collect());
    let rule = Linear.rule(&shapes).unwrap();
    let schedules = Linear.schedules(&LaunchContext {
        inputs: &inputs,
        formats: &[Format::F32, format],
        layouts: &[Layout::Dense, Layout::Rows],
        pieces: &[std::iter::once(0..rows).collect(), std::iter::once(0..n).collect()],
        extents: &rule.extents(None, 0),
        env: &Env::prompt(1),
        output: &[1, rows, n],
        numerics: Numerics::Lanes,
        subgroup: 32,
    });
    let offered = schedules.unwrap().offered.into_iter();
    offered.map(|mut schedule| (schedule.name, schedule.launches.remove(0))).collect()
}

/// The launch of attention of one query per head over `positions`, with 32 heads of `d` that share 8 KV heads.
fn attention(positions: usize, d: usize) -> Launch {
    let op = Attention { heads: 32, kv_heads: 8, scale: 0.1, causal: true, window: None, softcap: None };
    let inputs = [vec![1, 1, 32 * d], vec![1, positions, 8 * d], vec![1, positions, 8 * d]];
    let shapes = inputs.each_ref().map(|shape| shape.iter().map(|&d| Dim::Fixed(d)).collect());
    let rule = op.rule(&shapes).unwrap();
    let whole = |shape: &Vec<usize>| std::iter::once(0..shape[1]).collect::<Vec<_>>();
    let launches = op.launches(&LaunchContext {
        inputs: &inputs,
        formats: &[Format::F32; 3],
        layouts: &[Layout::Dense; 3],
        pieces: &inputs.each_ref().map(whole),
        extents: &rule.extents(None, 0),
        env: &Env::prompt(1),
        output: &[1, 1, 32 * d],
        numerics: Numerics::Lanes,
        subgroup: 32,
    });
    launches.unwrap().remove(0)
}

/// The kernel's WGSL in which every load `name[..]` is recorded: the index of the element, by the number of the invocation and of its
/// load. The element is still loaded, so that the kernel goes on as it would.
fn traced(kernel: &Kernel, name: &str) -> String {
    let source = kernel.source().unwrap();
    let mut text = String::new();
    let mut rest = source.as_str();
    let load = format!("{name}[");
    while let Some(at) = rest.find(&load) {
        let (before, after) = rest.split_at(at);
        text += before;
        let whole_word = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        let mut depth = 0;
        let end = after.find(|c: char| {
            depth += match c {
                '[' => 1,
                ']' => -1,
                _ => 0,
            };
            c == ']' && depth == 0
        });
        let end = end.unwrap();
        text += &match whole_word {
            true => format!("{load}recorded({})]", &after[load.len()..end]),
            false => after[..=end].to_string(),
        };
        rest = &after[end + 1..];
    }
    text += rest;
    // The entry point tells who it is before it does anything else.
    let entry = text.find(&format!("fn {}(", kernel.entry)).unwrap();
    let body = entry + text[entry..].find(") {\n").unwrap() + 4;
    let lane = if kernel.entry == "attend_lanes" { "lane" } else { "local" };
    text.insert_str(body, &format!("    invocation = group.x * 256u + {lane};\n"));
    text + &format!(
        "
        var<private> invocation: u32;
        var<private> loads: u32;
        @group(0) @binding(9) var<storage, read_write> trace: array<u32>;
        fn recorded(i: u32) -> u32 {{
            // 0 means that there was no load.
            trace[invocation * {MOST}u + min(loads, {}u)] = i + 1u;
            loads++;
            return i;
        }}",
        MOST - 1
    )
}

/// Runs the launch's first workgroups on `device` and returns what each invocation loaded of `name`, in its order, as element
/// indices. `sizes` are the bytes of each binding but the parameters, and `past` is how many positions a state holds.
fn run(
    (device, queue): (&wgpu::Device, &wgpu::Queue),
    (launch, name): (&Launch, &str),
    sizes: &[u64],
    past: u32,
) -> Vec<Vec<u64>> {
    use wgpu::{BufferBindingType, BufferUsages};
    let source = traced(&launch.kernel, name);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let constants: Vec<(&str, f64)> =
        launch.kernel.constants.iter().map(|(name, value)| (&**name, f64::from(*value))).collect();
    // A tile takes a software driver long, and one shows the pattern.
    let groups = if launch.kernel.entry.starts_with("gemm") { 1 } else { launch.groups[0].min(2) };
    let bytes = u64::from(groups) * 256 * MOST as u64 * 4;
    let buffer = |size: u64, usage: BufferUsages| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let storage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    let uniform = |words: &[u32]| {
        let found =
            buffer((words.len() as u64 * 4).next_multiple_of(16), BufferUsages::UNIFORM | BufferUsages::COPY_DST);
        queue.write_buffer(&found, 0, bytemuck::cast_slice(words));
        found
    };
    let trace = buffer(bytes, storage);
    let mut bound = vec![(0, BufferBindingType::Uniform, uniform(&launch.params))];
    for ((at, binding), &size) in (1..).zip(&launch.bindings).zip(sizes) {
        bound.push(match binding {
            Binding::Run => (at, BufferBindingType::Uniform, uniform(&[past, 0, 0, 0])),
            Binding::Input { .. } => (at, BufferBindingType::Storage { read_only: true }, buffer(size, storage)),
            _ => (at, BufferBindingType::Storage { read_only: false }, buffer(size, storage)),
        });
    }
    bound.push((9, BufferBindingType::Storage { read_only: false }, trace.clone()));
    let entry = |(binding, ty, _): &(u32, BufferBindingType, wgpu::Buffer)| wgpu::BindGroupLayoutEntry {
        binding: *binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty: *ty, has_dynamic_offset: false, min_binding_size: NonZeroU64::new(0) },
        count: None,
    };
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &bound.iter().map(entry).collect::<Vec<_>>(),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        })),
        module: &module,
        entry_point: Some(&launch.kernel.entry),
        compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, ..Default::default() },
        cache: None,
    });
    let entries: Vec<_> = bound
        .iter()
        .map(|(binding, _, buffer)| wgpu::BindGroupEntry { binding: *binding, resource: buffer.as_entire_binding() })
        .collect();
    let bindings =
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
    let back = buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bindings, &[]);
    pass.dispatch_workgroups(groups, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&trace, 0, &back, 0, bytes);
    queue.submit([encoder.finish()]);
    back.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let view = back.get_mapped_range(..).unwrap();
    let words: &[u32] = bytemuck::cast_slice(&view);
    let loaded = |words: &[u32]| words.iter().take_while(|word| **word > 0).map(|word| u64::from(*word) - 1).collect();
    words.chunks(MOST).map(loaded).collect()
}

/// Bytes that lanes which run together use, over bytes of the sectors that they touch. Panics on an address outside the tensor.
fn efficiency(loads: &[Vec<u64>], element: u64, weight: u64) -> f64 {
    let (mut used, mut touched) = (0, 0);
    for lanes in loads.chunks(TOGETHER) {
        for load in 0..lanes.iter().map(Vec::len).max().unwrap_or(0) {
            let elements: BTreeSet<u64> = lanes.iter().filter_map(|lane| lane.get(load)).copied().collect();
            let last = elements.last().map_or(0, |last| (last + 1) * element);
            assert!(last <= weight, "a load is outside a tensor of {weight} bytes");
            used += elements.len() as u64 * element;
            // No element is larger than a sector or lies across two.
            touched += elements.iter().map(|i| i * element / SECTOR).collect::<BTreeSet<_>>().len() as u64 * SECTOR;
        }
    }
    assert!(used > 0, "nothing was recorded");
    used as f64 / touched as f64
}

/// Bytes of one element of the binding `w`, which the kernel's module declares.
fn element(kernel: &Kernel) -> u64 {
    let source = kernel.source().unwrap();
    let sizes = HashMap::from([("vec4<u32>", 16), ("vec2<u32>", 8), ("vec4<f32>", 16), ("f32", 4)]);
    let packed = source.lines().find_map(|line| line.strip_prefix("alias Packed = ")).unwrap();
    sizes[packed.trim_end_matches(';')]
}

#[test]
fn lanes_that_run_together_read_whole_sectors() {
    let Some(info) = adapters().into_iter().find(|info| info.backend == Backend::Vulkan) else { return };
    let (device, queue) = open_by_hand(&info);
    let mut report = Vec::new();
    for k in [4096, 11_008] {
        for (rows, n, formats) in [
            (1, 64, &Format::NUMBERS[..]),
            (8, 64, &Format::NUMBERS[..]),
            // A tile of Q8_0 uses half a sector at a time, and the other half in its next step: that is not asserted yet.
            (64, 128, &Format::NUMBERS[..3]),
            (512, 256, &Format::NUMBERS[..3]),
        ] {
            // A tile walks along k in the same steps whatever its length, and takes a software driver seconds.
            for &format in formats.iter().filter(|format| rows <= 8 || (k == 4096 && **format == Format::F16)) {
                let (count, row) = weight_rows(format, &[n, k], Layout::Rows);
                let weight = (count * row) as u64;
                let (x, y) = ((rows * k * 4) as u64, (rows * n * 4) as u64);
                // Which loads a lane makes ahead does not depend on the format: all schedules run in one.
                let all = if format == Format::F16 { usize::MAX } else { 1 };
                for (schedule, launch) in products(rows, n, k, format).into_iter().take(all) {
                    let loads = run((&device, &queue), (&launch, "w"), &[x, weight, x, y], 0);
                    assert!(loads.iter().all(|lane| lane.len() < MOST), "a lane has more loads than are recorded");
                    let found = efficiency(&loads, element(&launch.kernel), weight);
                    let name = format!("{schedule}: {rows} x {n} x {k} {format}");
                    assert!(found >= 0.9, "{name}: {found}");
                    let each = loads.iter().map(Vec::len).max().unwrap_or(0);
                    report.push(format!("{name}: {found:.2}, {each} loads of a lane"));
                }
            }
        }
    }
    for d in [64, 128] {
        let launch = attention(4096, d);
        let (q, state, y) = ((32 * d * 4) as u64, (4096 * 8 * d * 4) as u64, (32 * (d + 2) * 4 * 16) as u64);
        for name in ["k", "v"] {
            let loads = run((&device, &queue), (&launch, name), &[y, q, 16, q, state, state], 4095);
            let found = efficiency(&loads, 16, state);
            let name = format!("{} {name} of 4096 positions, heads of {d}", launch.kernel.entry);
            assert!(found >= 0.9, "{name}: {found}");
            let each = loads.iter().map(Vec::len).max().unwrap_or(0);
            report.push(format!("{name}: {found:.2}, {each} loads of a lane"));
        }
    }
    insta::assert_snapshot!(report.join("\n"));
}
