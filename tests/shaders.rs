//! Every shader in every variant that the ops choose is valid WGSL and can be written for Vulkan, Metal, DX12 and GL.
//!
//! It needs no GPU, so a machine with a single driver covers the languages of all four backends.

use fanfold::format::Format;
use fanfold::kernel::{Kernel, Layout, Numerics};
use fanfold::ops::sample::{Role, Sample};
use fanfold::ops::{LaunchContext, samples};
use fanfold::random::Random;
use fanfold::shape::{Dim, Env, Shape, resolve};
use fanfold::tensor::Tensor;
use naga::back::{PipelineConstants, glsl, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// Seeds per op, enough for each op to show all of its variants, the number of which the test below pins.
const SEEDS: u64 = 3000;

fn kernels(sample: &Sample) -> Vec<Kernel> {
    let whole: Vec<Vec<usize>> = sample.inputs.iter().map(|(_, t)| t.shape().to_vec()).collect();
    let shapes: Vec<Shape> = whole.iter().map(|shape| shape.iter().map(|&d| Dim::Fixed(d)).collect()).collect();
    // A weight has the layout in which the op reads it: matrices keep their type, all others are widened.
    let layout = |(i, (role, _)): (usize, &(Role, Tensor))| match role {
        Role::Weight(_) => sample.op.operand(i).layout(),
        Role::Input | Role::State => Layout::Dense,
    };
    let layouts: Vec<Layout> = sample.inputs.iter().enumerate().map(layout).collect();
    let kept = |((role, tensor), &layout): (&(Role, Tensor), &Layout)| match (role, layout) {
        (Role::Weight(format), Layout::Rows) => *format,
        _ => Format::from(tensor.dtype()).dtype().into(),
    };
    let formats: Vec<Format> = sample.inputs.iter().zip(&layouts).map(kept).collect();
    let rows = |shape: &Vec<usize>| shape.split_last().map_or(1, |(_, lead)| lead.iter().product::<usize>());
    let pieces: Vec<Vec<_>> = whole.iter().map(|shape| std::iter::once(0..rows(shape)).collect()).collect();
    let rule = sample.op.rule(&shapes).unwrap();
    let extents = rule.extents(None, 0);
    let env = Env { past: sample.past, ..Env::prompt(1) };
    let output = resolve(&rule.output_shape(), &env);
    let (formats, layouts, pieces, extents) = (&formats, &layouts, &pieces, &extents);
    let of = |numerics: Numerics| {
        let env = &env;
        let site = LaunchContext { inputs: &whole, formats, layouts, pieces, extents, env, output: &output, numerics };
        sample.op.launches(&site).unwrap()
    };
    [Numerics::Sequential, Numerics::Lanes].into_iter().flat_map(of).map(|launch| launch.kernel).collect()
}

fn variants() -> HashSet<Kernel> {
    let all = samples();
    let seeded = |make: fn(&mut Random) -> Sample| (0..SEEDS).flat_map(move |s| kernels(&make(&mut Random::new(s))));
    all.into_iter().flat_map(|(_, make)| seeded(make)).collect()
}

fn write(kernel: &Kernel) {
    let source = kernel.source().unwrap();
    let fail =
        |stage: &str, error: &dyn std::fmt::Debug| -> ! { panic!("{source}\n{}: {stage}: {error:?}", kernel.entry) };
    let module =
        naga::front::wgsl::parse_str(&source).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
    // No optional feature is allowed, so that a kernel runs on any adapter. unpack2x16float is part of WebGPU; only
    // wgpu's downlevel adapters may lack it.
    let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32)
        .validate(&module)
        .unwrap_or_else(|error| fail("validation", &error));
    let constants: PipelineConstants =
        kernel.constants.iter().map(|(name, value)| (name.to_string(), *value as f64)).collect();
    let stage = naga::ShaderStage::Compute;
    let (module, info) = process_overrides(&module, &info, Some((stage, &*kernel.entry)), &constants)
        .unwrap_or_else(|error| fail("overrides", &error));

    let entry_point = kernel.entry.to_string();
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: entry_point.clone() };
    spv::write_vec(&module, &info, &spv::Options::default(), Some(&pipeline))
        .unwrap_or_else(|error| fail("SPIR-V", &error));
    msl::write_string(&module, &info, &msl::Options::default(), &msl::PipelineOptions::default())
        .unwrap_or_else(|error| fail("MSL", &error));
    let (options, pipeline) = (hlsl::Options::default(), hlsl::PipelineOptions::default());
    hlsl::Writer::new(&mut String::new(), &options, &pipeline)
        .write(&module, &info, None)
        .unwrap_or_else(|error| fail("HLSL", &error));
    let options = glsl::Options { version: glsl::Version::new_gles(310), ..Default::default() };
    let pipeline = glsl::PipelineOptions { shader_stage: stage, entry_point, multiview: None };
    let mut text = String::new();
    glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, BoundsCheckPolicies::default())
        .and_then(|mut writer| writer.write())
        .unwrap_or_else(|error| fail("GLSL", &error));
}

#[test]
fn every_variant_is_written_for_every_backend() {
    let variants = variants();
    variants.iter().for_each(write);
    let entries: BTreeSet<String> = variants.iter().map(|k| format!("{}/{}", k.shader.name(), k.entry)).collect();
    let expected = [
        "attention/attend",
        "attention/attend_lanes",
        "binary/add",
        "binary/mul",
        "cache/append",
        "experts/down_many",
        "experts/down_one",
        "experts/up_many",
        "experts/up_one",
        "gather/gather",
        "layout/strided",
        "linear/gemm",
        "linear/gemm_tiles_128",
        "linear/gemm_tiles_64",
        "linear/gemv",
        "linear/gemv_lanes",
        "linear/skinny",
        "normalization/layer",
        "normalization/layer_lanes",
        "normalization/rms",
        "normalization/rms_lanes",
        "reduce/reduce",
        "reduce/reduce_weighted",
        "rotary/rotate",
        "routing/route",
        "softmax/softmax",
        "unary/map",
    ];
    assert!(entries.iter().eq(expected.iter()), "{entries:?}");
    // 8 of attention (orders of sums, d and e by fours or not), 4 of gather (types, and rows without padding), 75 of
    // linear (9 shapes of blocks; for each the types, k by fours or not, and rows without padding; those by lanes read
    // 16-bit types by eights as well), 28 of experts (likewise), 8 of unary, 6 of binary (how the second input is
    // repeated), 4 of normalization, one for each other op.
    assert_eq!(variants.len(), 8 + 4 + 75 + 28 + 8 + 6 + 11);
}

fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_string())
        .collect()
}

#[test]
fn a_shader_has_the_stem_of_its_ops() {
    let (shaders, ops) = (stems("shaders", "wgsl"), stems("src/ops", "rs"));
    let lonely: Vec<_> = shaders.difference(&ops).collect();
    assert!(lonely.is_empty(), "no file in src/ops for {lonely:?}");
}

#[test]
fn an_unknown_import_is_named() {
    let shader = fanfold::kernel::Shader::new("x", "#import nowhere\n");
    let error = Kernel::new(shader, "main").source().unwrap_err();
    assert!(error.contains("nowhere"), "{error}");
}
