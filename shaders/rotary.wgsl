// y = x, in which dimensions i and i + rotated of each head are rotated as a pair, by the angle of the row's position.
// x is [rows, heads * dims]; a row of the tables has `rotated` elements. One element per invocation; nothing is
// reduced. Queries and keys may be rotated side by side, each in workgroups of its own.
struct Params {
    // The number of elements of a head, half the number of dimensions that are rotated, and the number of rows of the tables.
    dims: u32,
    rotated: u32,
    positions: u32,
    unused: u32,
    // For each side: the number of elements of x, that of a row of it, nothing, and the number of workgroups along x.
    sides: array<vec4<u32>, SIDES>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> cosines: array<f32>;
@group(0) @binding(3) var<storage, read> sines: array<f32>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

#import sides

#import put

#import grid

@compute @workgroup_size(64)
fn rotate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(vec3<u32>(within_side(group.x), group.yz), groups, lane);
    if (i >= params.sides[side].x) {
        return;
    }
    let width = params.sides[side].y;
    let dim = i % width % params.dims;
    if (dim >= 2u * params.rotated) {
        put(i, x_at(i));
        return;
    }
    let position = min(positions[i / width], params.positions - 1u);
    let angle = position * params.rotated + dim % params.rotated;
    if (dim < params.rotated) {
        put(i, x_at(i) * cosines[angle] - x_at(i + params.rotated) * sines[angle]);
    } else {
        put(i, x_at(i) * cosines[angle] + x_at(i - params.rotated) * sines[angle]);
    }
}
