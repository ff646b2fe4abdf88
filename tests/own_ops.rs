//! Ops of one's own: what tells two apart, and that a shader that is wrong harms nobody.

mod common;

use common::adapters;
use fanfold::device::gpu::{GpuDevice, GpuOptions};
use fanfold::device::{Device, DeviceError};
use fanfold::graph::Graph;
use fanfold::kernel::{Binding, Kernel, Launch, Shader};
use fanfold::ops::{EvalContext, LaunchContext, Op, OpError, Operand, Operator, Softmax};
use fanfold::plan::Plan;
use fanfold::program::lower;
use fanfold::session::{Options, Session, SessionError};
use fanfold::shape::{Env, Shape};
use fanfold::sharding::ShardingRule;
use fanfold::tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// An op that copies, by whatever shader it is given.
#[derive(Debug, serde::Serialize)]
struct Copied {
    shader: &'static str,
}

impl Operator for Copied {
    fn name(&self) -> &'static str {
        "Copied"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        Ok(ShardingRule::of("Copied", "k -> k").bind(inputs)?)
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        Ok(context.inputs[0].clone())
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let shader = Shader::new("copied", self.shader);
        Ok(vec![Launch {
            kernel: Kernel::new(shader, "main"),
            params: vec![context.numel() as u32],
            bindings: vec![Binding::input(0), Binding::Output],
            groups: [1, 1, 1],
        }])
    }
}

const HEAD: &str = "
@group(0) @binding(0) var<uniform> n: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn main() {";

fn shader(body: &str) -> &'static str {
    format!("{HEAD}{body}}}").leak()
}

/// Two nodes: what the first one writes out of bounds could only lie in the second's buffers.
fn run(op: Copied, device: Box<dyn Device>) -> Result<Tensor, SessionError> {
    let mut graph = Graph::new();
    let x = graph.input("x", [4.into()], DType::F32).unwrap();
    let copied = graph.node("copied", op, &[x]).unwrap();
    let y = graph.node("shares", Softmax, &[copied]).unwrap();
    graph.output("y", y).unwrap();
    let env = Env::prompt(1);
    let options = Options::new(env);
    let program = lower(&graph, &Plan::whole(&graph, 1).build().unwrap()).unwrap();
    let mut session = Session::open(program, vec![device], Arc::new(HashMap::new()), options, Arc::new(|_| ()))?;
    let x = Tensor::f32([4], vec![0.0, 1.0, 2.0, 3.0]).unwrap();
    Ok(session.run(env, HashMap::from([("x".to_string(), x)]))?.remove("y").unwrap())
}

#[test]
fn a_shader_that_leaves_its_buffers_harms_nobody() {
    for adapter in adapters() {
        let open = || Box::new(GpuDevice::open(&adapter, &GpuOptions::default()).unwrap());
        let right = run(Copied { shader: shader("for (var i = 0u; i < n; i++) { y[i] = x[i]; }") }, open()).unwrap();
        // Reads and writes far outside; inside, the same copy.
        let body = "for (var i = 0u; i < n; i++) { y[i] = x[i]; } y[n * 100000u] = x[n * 70000u];
                    let last = y[3]; y[3] = last;";
        let wild = run(Copied { shader: shader(body) }, open()).unwrap();
        assert_eq!(wild.as_f32().unwrap()[..3], right.as_f32().unwrap()[..3], "{}", adapter.name);
        assert!(wild.as_f32().unwrap().iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_shader_that_does_not_compile_is_an_error_with_its_node() {
    for adapter in adapters() {
        for body in ["this is no WGSL", "y[0] = missing;", "#import nowhere\n"] {
            let device = Box::new(GpuDevice::open(&adapter, &GpuOptions::default()).unwrap());
            let error = run(Copied { shader: shader(body) }, device).unwrap_err();
            let SessionError::Rank { cause, .. } = &error else { panic!("{error}") };
            let SessionError::Device(DeviceError::Node { node, .. }) = &**cause else { panic!("{error}") };
            assert_eq!(node, "copied");
            assert!(error.to_string().contains("copied"), "{error}");
        }
    }
}

#[test]
fn ops_are_told_apart_by_type_and_attributes_and_shaders_by_text() {
    let copied = |shader| Op::from(Copied { shader });
    assert_eq!(copied("a"), copied("a"));
    assert_ne!(copied("a"), copied("b"));
    assert_ne!(copied("a"), Op::from(Softmax));
    assert_eq!(serde_json::to_string(&Op::from(Softmax)).unwrap(), r#"{"Softmax":null}"#);
    assert_eq!(serde_json::to_string(&copied("a")).unwrap(), r#"{"Copied":{"shader":"a"}}"#);
    assert_eq!(Shader::new("one", "text"), Shader::new("two", "text"));
    assert_ne!(Shader::new("one", "text"), Shader::new("one", "other text"));
}
