//! Every shader in every variant that the ops choose is valid WGSL and can be written for Vulkan, Metal, DX12 and GL.
//!
//! It needs no GPU, so a machine with a single driver covers the languages of all four backends.

use fanfold::format::Format;
use fanfold::kernel::{Kernel, Layout, Numerics, Step, Tail};
use fanfold::ops::sample::{Role, Sample};
use fanfold::ops::{LaunchContext, samples};
use fanfold::random::Random;
use fanfold::shape::{Dim, Env, Shape, resolve};
use fanfold::tensor::Tensor;
use naga::back::{PipelineConstants, glsl, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::collections::{BTreeMap, BTreeSet, HashSet};
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
    let of = |(numerics, subgroup): (Numerics, u32)| {
        let env = &env;
        let site = LaunchContext {
            inputs: &whole,
            formats,
            layouts,
            pieces,
            extents,
            env,
            output: &output,
            numerics,
            subgroup,
        };
        sample.op.schedules(&site).unwrap().offered.into_iter().flat_map(|schedule| schedule.launches)
    };
    [(Numerics::Sequential, 0), (Numerics::Sequential, 8), (Numerics::Lanes, 32)]
        .into_iter()
        .flat_map(of)
        .map(|launch| launch.kernel)
        .collect()
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
    // No optional feature is allowed, so that a kernel runs on any adapter, but for kernels whose modules are chosen by a feature.
    // unpack2x16float is part of WebGPU; only wgpu's downlevel adapters may lack it.
    let subgroups = kernel.modules.contains(&("spread", "spread_by_lanes"));
    let optional = if subgroups { Capabilities::SUBGROUP } else { Capabilities::empty() };
    let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32 | optional)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| fail("validation", &error));
    let constants: PipelineConstants =
        kernel.constants.iter().map(|(name, value)| (name.to_string(), *value as f64)).collect();
    let stage = naga::ShaderStage::Compute;
    let (module, info) = process_overrides(&module, &info, Some((stage, &*kernel.entry)), &constants)
        .unwrap_or_else(|error| fail("overrides", &error));

    let entry_point = kernel.entry.to_string();
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: entry_point.clone() };
    let options = spv::Options { lang_version: (1, 3), ..Default::default() };
    spv::write_vec(&module, &info, &options, Some(&pipeline)).unwrap_or_else(|error| fail("SPIR-V", &error));
    let options = msl::Options { lang_version: (2, 1), ..Default::default() };
    msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|error| fail("MSL", &error));
    let model = hlsl::ShaderModel::V6_0;
    let (options, pipeline) =
        (hlsl::Options { shader_model: model, ..Default::default() }, hlsl::PipelineOptions::default());
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
    // Kernels that can run side by side with others of their kind, as three sides with different tails.
    let tails = [Some(Tail(vec![Step::Map("silu"), Step::Add])), Some(Tail(vec![Step::Scatter]))];
    let sides: Vec<Kernel> = variants.iter().filter(|kernel| !kernel.per_side.is_empty()).cloned().collect();
    assert!(!sides.is_empty());
    for mut kernel in sides {
        kernel.beside.extend_from_slice(&tails);
        write(&kernel);
    }
    let entries: BTreeSet<String> = variants.iter().map(|k| format!("{}/{}", k.shader.name(), k.entry)).collect();
    let expected = [
        "attention/attend",
        "attention/attend_lanes",
        "attention/merge",
        "binary/add",
        "binary/mul",
        "cache/append",
        "experts/down_many",
        "experts/down_one",
        "experts/up_many",
        "experts/up_one",
        "gather/gather",
        "layout/strided",
        "linear/gemm_tiles_128",
        "linear/gemm_tiles_64",
        "linear/gemv_lanes",
        "linear/sequential",
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
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    variants.iter().for_each(|kernel| *counts.entry(kernel.shader.name().to_string()).or_default() += 1);
    let expected = [
        // Orders of sums, and d and e by fours or not; and what adds up parts.
        ("attention", 8 + 1),
        // The function, and how the second input is repeated.
        ("binary", 6),
        ("cache", 1),
        // Each of four entries with x shared by lanes or not, for each of ten layouts: the formats, each with k by fours or not and
        // 16-bit types by eights as well, and rows without padding.
        ("experts", 4 * 2 * 10),
        // The formats, and rows without padding.
        ("gather", 5),
        ("layout", 1),
        // The same layouts: four numbers of rows with x shared or not, fourteen blocks by lanes, and two tiles.
        ("linear", (4 * 2 + 14 + 2) * 10),
        ("normalization", 4),
        ("reduce", 2),
        ("rotary", 1),
        ("routing", 1),
        ("softmax", 1),
        ("unary", 8),
    ];
    assert_eq!(counts, expected.map(|(shader, count)| (shader.to_string(), count)).into());
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
