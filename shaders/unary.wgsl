// y[i] = apply(x[i]), with the function that the kernel selects. One element per invocation; nothing is reduced.
struct Params {
    n: u32,
    // The cap of `softcap` or the factor of `scale`. Other functions do not read it.
    constant: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

#import functions

fn softcap(x: f32) -> f32 {
    return params.constant * hyperbolic_tangent(x / params.constant);
}

fn scale(x: f32) -> f32 {
    return params.constant * x;
}

#import grid

@compute @workgroup_size(64)
fn map(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    if (i < params.n) {
        y[i] = apply(x[i]);
    }
}
