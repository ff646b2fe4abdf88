// y = x, in which dimensions i and i + rotated of each head are rotated as a pair, by the angle of the row's position.
// x is [rows, heads * dims]; a row of the tables has `rotated` elements. One element per invocation; nothing is
// reduced.
struct Params {
    n: u32,
    // The number of elements in a row of x and in a head.
    width: u32,
    dims: u32,
    // Half the number of dimensions that are rotated, and the number of rows of the tables.
    rotated: u32,
    positions: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> cosines: array<f32>;
@group(0) @binding(3) var<storage, read> sines: array<f32>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

#import put

#import grid

@compute @workgroup_size(64)
fn rotate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    if (i >= params.n) {
        return;
    }
    let dim = i % params.width % params.dims;
    if (dim >= 2u * params.rotated) {
        put(i, x[i]);
        return;
    }
    let position = min(positions[i / params.width], params.positions - 1u);
    let angle = position * params.rotated + dim % params.rotated;
    if (dim < params.rotated) {
        put(i, x[i] * cosines[angle] - x[i + params.rotated] * sines[angle]);
    } else {
        put(i, x[i] * cosines[angle] + x[i - params.rotated] * sines[angle]);
    }
}
