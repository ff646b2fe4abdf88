// y[outer, inner] = sum over j of x[outer, j, inner], divided by `divisor`, or with each term multiplied by
// weights[outer, j]. One output per invocation.
// The order of reduction is ascending in j: it depends only on the number of elements.
struct Params {
    n: u32,
    len: u32,
    inner: u32,
    divisor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;

#import put

#import grid

@compute @workgroup_size(64)
fn reduce(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    if (i >= params.n) {
        return;
    }
    let start = i / params.inner * params.len * params.inner + i % params.inner;
    var sum = 0.0;
    for (var j = 0u; j < params.len; j++) {
        sum += x[start + j * params.inner];
    }
    put(i, sum / params.divisor);
}

@compute @workgroup_size(64)
fn reduce_weighted(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    if (i >= params.n) {
        return;
    }
    let outer = i / params.inner;
    let start = outer * params.len * params.inner + i % params.inner;
    var sum = 0.0;
    for (var j = 0u; j < params.len; j++) {
        sum += weights[outer * params.len + j] * x[start + j * params.inner];
    }
    put(i, sum);
}
