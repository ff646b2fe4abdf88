// y[i] = a[i] + b[i] or a[i] * b[i]. b may be a row that is repeated for each row of a, or a column with one element
// for each row of a. One element per invocation; nothing is reduced.
struct Params {
    n: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// How b is broadcast: 0 if it has a's shape, 1 if it is a row, 2 if it is a column. A constant of the pipeline, so
// that without a broadcast no element costs a division.
override REPEAT: u32;

fn second(i: u32) -> f32 {
    if (REPEAT == 0u) {
        return b[i];
    }
    if (REPEAT == 1u) {
        return b[i % params.width];
    }
    return b[i / params.width];
}

#import grid

@compute @workgroup_size(64)
fn add(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    if (i < params.n) {
        y[i] = a[i] + second(i);
    }
}

@compute @workgroup_size(64)
fn mul(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    if (i < params.n) {
        y[i] = a[i] * second(i);
    }
}
