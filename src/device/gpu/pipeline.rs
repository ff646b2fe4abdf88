//! Compiles each kernel once: a cache from [`Kernel`] to pipeline.
//!
//! It deliberately does not know which op launches a kernel, or which buffers it runs on. Read `prepared` next.

use super::context::Context;
use crate::device::DeviceError;

use crate::kernel::{Binding, Dispatched, Kernel};
use std::collections::HashMap;

/// A compiled kernel.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    kinds: Kinds,
}

/// The number of each binding, and its type in the shader.
type Kinds = Vec<(u32, wgpu::BufferBindingType)>;

/// The pipelines of one device.
#[derive(Default)]
pub(super) struct Pipelines(HashMap<Kernel, Pipeline>);

/// The type that a binding has in the shader.
fn kind(binding: &Binding) -> wgpu::BufferBindingType {
    match binding {
        Binding::Input { .. } | Binding::TailValue(_) | Binding::Scratch { written: false } => {
            wgpu::BufferBindingType::Storage { read_only: true }
        }
        Binding::Output | Binding::Scratch { written: true } => wgpu::BufferBindingType::Storage { read_only: false },
        Binding::Run | Binding::TailWords => wgpu::BufferBindingType::Uniform,
    }
}

impl Pipelines {
    /// The pipeline of a dispatch's kernel, compiled if this is its first launch. Errors when the kernel does not
    /// compile, or when its bindings have other types than in its first launch.
    pub(super) fn get(&mut self, context: &mut Context, dispatched: &Dispatched) -> Result<&Pipeline, DeviceError> {
        let own = dispatched.numbered().map(|(number, binding)| (number, kind(&binding)));
        let kinds: Kinds = std::iter::once((0, wgpu::BufferBindingType::Uniform)).chain(own).collect();
        if !self.0.contains_key(&dispatched.kernel) {
            let pipeline = compile(context, &dispatched.kernel, kinds.clone())?;
            self.0.insert(dispatched.kernel.clone(), pipeline);
        }
        match self.0.get(&dispatched.kernel) {
            Some(pipeline) if pipeline.kinds == kinds => Ok(pipeline),
            _ => {
                let (name, entry) = (dispatched.kernel.shader.name(), &dispatched.kernel.entry);
                Err(context.refused(format!("kernel {name}/{entry} is launched with two kinds of bindings")))
            }
        }
    }
}

fn compile(context: &mut Context, kernel: &Kernel, kinds: Kinds) -> Result<Pipeline, DeviceError> {
    let name = format!("{}/{}", kernel.shader.name(), kernel.entry);
    let source = kernel.source().map_err(|reason| context.refused(format!("kernel {reason}")))?;
    let entries: Vec<_> = kinds
        .iter()
        .map(|&(binding, ty)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        })
        .collect();
    let constants: Vec<(&str, f64)> = kernel.constants.iter().map(|(name, value)| (&**name, (*value).into())).collect();
    let device = &context.device;
    let compiled = context.scoped(|| {
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(&name), source: wgpu::ShaderSource::Wgsl(source.into()) };
        let module = if kernel.shader.is_trusted() {
            let checks =
                wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
            // SAFETY: only shaders of this crate are trusted. Every loop in them counts up to a parameter, so none is
            // infinite. All other checks stay on, bounds checks included.
            unsafe { device.create_shader_module_trusted(descriptor, checks) }
        } else {
            device.create_shader_module(descriptor)
        };
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&name), entries: &entries });
        let groups = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&name),
            layout: Some(&groups),
            module: &module,
            entry_point: Some(&kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // This crate's shaders write workgroup memory before they read it; a user's shader may not.
                zero_initialize_workgroup_memory: !kernel.shader.is_trusted(),
            },
            cache: None,
        });
        Pipeline { pipeline, layout, kinds }
    });
    context.check()?;
    context.counters.pipelines += 1;
    compiled.map_err(|error| context.refused(format!("kernel {name}: {error}")))
}
