// y[row, :] = table[index[row] - offset, :]. The table w may be one piece of a table that is split over several buffers
// or cut over ranks: the first piece writes zeros where the index is outside it, later pieces leave such rows as they
// are. Rows of w are laid out as `weight` defines. Four elements per invocation; nothing is reduced.
struct Params {
    // The number of rows of y, of elements in a row, and of groups of four in a row.
    rows: u32,
    width: u32,
    packed: u32,
    // The first index that this piece of the table holds, and the number of its rows.
    offset: u32,
    len: u32,
    // Whether this is the first piece, which writes the zeros.
    first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> w: array<Packed>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

#import weight

#import grid

@compute @workgroup_size(64)
fn gather(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    let row = i / params.packed;
    if (row >= params.rows) {
        return;
    }
    let index = indices[row];
    let inside = index >= params.offset && index - params.offset < params.len;
    if (!inside && params.first == 0u) {
        return;
    }
    let column = i % params.packed;
    var value = vec4<f32>();
    if (inside) {
        value = four_of_row(index - params.offset, column, params.width);
    }
    let width = min(params.width - 4u * column, 4u);
    for (var c = 0u; c < width; c++) {
        y[row * params.width + 4u * column + c] = value[c];
    }
}
