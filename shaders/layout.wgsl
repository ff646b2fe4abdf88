// y = x read from an offset, with one stride per dimension of y: transposes and slices of up to four dimensions.
// Elements are copied as bits, so token ids can be copied as well. One element per invocation; nothing is reduced.
struct Params {
    shape: vec4<u32>,
    strides: vec4<u32>,
    n: u32,
    offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

#import grid

@compute @workgroup_size(64)
fn strided(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    if (i >= params.n) {
        return;
    }
    let shape = params.shape;
    let rest = i / shape.w;
    let planes = rest / shape.z;
    let at = vec4<u32>(planes / shape.y, planes % shape.y, rest % shape.z, i % shape.w) * params.strides;
    y[i] = x[params.offset + at.x + at.y + at.z + at.w];
}
