//! How kernels for GPUs read weights, shown without a GPU: each load of a kernel is recorded on a software driver, with the lane
//! that made it and the address. Every address must be inside the weight, and the 32 lanes that a GPU runs together must use
//! nearly all bytes of the memory sectors that they touch.

mod common;

use common::adapters;
use fanfold::device::gpu::Backend;
use fanfold::format::Format;
use fanfold::kernel::{Kernel, Launch, Layout, Numerics, weight_rows};
use fanfold::ops::{LaunchContext, Linear, Operator};
use fanfold::shape::{Dim, Env};
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;

/// Bytes of a sector, the smallest piece that a GPU's memory delivers.
const SECTOR: u64 = 32;

/// Lanes that run together on the GPUs with the widest subgroups in common use.
const TOGETHER: usize = 32;

/// Loads that a lane can record.
const MOST: usize = 4096;

/// The launch of a product of `rows` rows with a weight `[n, k]` in `format`.
fn product(rows: usize, n: usize, k: usize, format: Format) -> Launch {
    let inputs = [vec![1, rows, k], vec![n, k]];
    let shapes = inputs.each_ref().map(|shape| shape.iter().map(|&d| Dim::Fixed(d)).collect());
    let rule = Linear.rule(&shapes).unwrap();
    let launches = Linear.launches(&LaunchContext {
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
    launches.unwrap().remove(0)
}

/// The kernel's WGSL in which every load `w[..]` is recorded: the index of the element, by the number of the invocation and of its
/// load. The element is still loaded, so that the kernel goes on as it would.
fn traced(kernel: &Kernel) -> String {
    let source = kernel.source().unwrap();
    let mut text = String::new();
    let mut rest = source.as_str();
    while let Some(at) = rest.find("w[") {
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
            true => format!("w[recorded({})]", &after[2..end]),
            false => after[..=end].to_string(),
        };
        rest = &after[end + 1..];
    }
    text += rest;
    // The entry point tells who it is before it does anything else.
    let entry = text.find(&format!("fn {}(", kernel.entry)).unwrap();
    let body = entry + text[entry..].find(") {\n").unwrap() + 4;
    text.insert_str(body, "    invocation = group.x * 256u + local;\n");
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

/// Runs the launch's first workgroups on `device` and returns what each invocation loaded, in its order, as element indices.
fn run(device: &wgpu::Device, queue: &wgpu::Queue, launch: &Launch, weight: u64, x: u64, y: u64) -> Vec<Vec<u64>> {
    let source = traced(&launch.kernel);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let constants: Vec<(&str, f64)> =
        launch.kernel.constants.iter().map(|(name, value)| (&**name, f64::from(*value))).collect();
    // A tile takes a software driver long, and one shows the pattern.
    let groups = if launch.kernel.entry.starts_with("gemm") { 1 } else { launch.groups[0].min(2) };
    let bytes = u64::from(groups) * 256 * MOST as u64 * 4;
    let buffer = |size: u64, usage: wgpu::BufferUsages| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let params = buffer(64, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
    queue.write_buffer(&params, 0, bytemuck::cast_slice(&launch.params));
    let (x, w, y, trace) = (buffer(x, storage), buffer(weight, storage), buffer(y, storage), buffer(bytes, storage));
    let bound = [(0, &params), (1, &x), (2, &w), (3, &x), (4, &y), (9, &trace)];
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &bound.map(|(binding, _)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding {
                    0 => wgpu::BufferBindingType::Uniform,
                    4 | 9 => wgpu::BufferBindingType::Storage { read_only: false },
                    _ => wgpu::BufferBindingType::Storage { read_only: true },
                },
                has_dynamic_offset: false,
                min_binding_size: NonZeroU64::new(0),
            },
            count: None,
        }),
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
    let entries = bound.map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() });
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

/// Bytes that lanes which run together use, over bytes of the sectors that they touch. Panics on an address outside the weight.
fn efficiency(loads: &[Vec<u64>], element: u64, weight: u64) -> f64 {
    let (mut used, mut touched) = (0, 0);
    for lanes in loads.chunks(TOGETHER) {
        for load in 0..lanes.iter().map(Vec::len).max().unwrap_or(0) {
            let elements: BTreeSet<u64> = lanes.iter().filter_map(|lane| lane.get(load)).copied().collect();
            let last = elements.last().map_or(0, |last| (last + 1) * element);
            assert!(last <= weight, "a load is outside the weight of {weight} bytes");
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
fn lanes_that_run_together_read_whole_sectors_of_weights() {
    let Some(info) = adapters().into_iter().find(|info| info.backend == Backend::Vulkan) else { return };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = found.into_iter().find(|adapter| adapter.get_info().name.trim() == info.name).unwrap();
    let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
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
                let launch = product(rows, n, k, format);
                let (count, row) = weight_rows(format, &[n, k], Layout::Rows);
                let weight = (count * row) as u64;
                let (x, y) = ((rows * k * 4) as u64, (rows * n * 4) as u64);
                let loads = run(&device, &queue, &launch, weight, x, y);
                assert!(loads.iter().all(|lane| lane.len() < MOST), "a lane has more loads than are recorded");
                let found = efficiency(&loads, element(&launch.kernel), weight);
                let name = format!("{} {rows} x {n} x {k} {format}", launch.kernel.entry);
                assert!(found >= 0.9, "{name}: {found}");
                let each = loads.iter().map(Vec::len).max().unwrap_or(0);
                report.push(format!("{name}: {found:.2}, {each} loads of a lane"));
            }
        }
    }
    insta::assert_snapshot!(report.join("\n"));
}
