// y[i] = a[i] + b[i] or a[i] * b[i], where b is repeated every `period` elements (a row of the last dimension).
// One element per invocation; nothing is reduced.
struct Params {
    n: u32,
    period: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn add(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * 64u + lane;
    if (i < params.n) {
        y[i] = a[i] + b[i % params.period];
    }
}

@compute @workgroup_size(64)
fn mul(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * 64u + lane;
    if (i < params.n) {
        y[i] = a[i] * b[i % params.period];
    }
}
