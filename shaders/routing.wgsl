// gates[row, i] = exp(x[row, i] - max) / sum for the `top` largest of a row, 0 for the others. One workgroup per row:
// every lane finds the chosen elements and the sum itself, which needs no barrier, and writes its part of the row.
// The order of the sum is ascending: it depends only on the number of elements and on which are chosen.
struct Params {
    rows: u32,
    len: u32,
    top: u32,
    // Whether the sum is over the chosen elements only.
    normalize: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> gates: array<f32>;

const NOT_A_NUMBER = 0xfffffffeu;

// A rank in the order of choice: the larger key first, of equal keys the lower index.
struct Place {
    key: u32,
    index: u32,
}

// Maps a float to an integer key that sorts like the number, with NaN above all others: drivers differ in the result
// of a comparison with NaN. Both zeros have one key.
fn key(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) {
        return NOT_A_NUMBER;
    }
    return select(0x80000000u + size, 0x80000000u - size, bits > size);
}

fn precedes(a: Place, b: Place) -> bool {
    return a.key > b.key || (a.key == b.key && a.index < b.index);
}

// The first element of a row in the order of choice after `last`.
fn next(start: u32, last: Place) -> Place {
    var found = Place(0u, params.len);
    for (var i = 0u; i < params.len; i++) {
        let place = Place(key(x[start + i]), i);
        if (precedes(last, place) && precedes(place, found)) {
            found = place;
        }
    }
    return found;
}

@compute @workgroup_size(8)
fn route(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    if (row >= params.rows) {
        return;
    }
    let start = row * params.len;
    let first = next(start, Place(NOT_A_NUMBER + 1u, 0u));
    let largest = x[start + first.index];
    var last = first;
    for (var i = 1u; i < params.top; i++) {
        last = next(start, last);
    }
    var sum = 0.0;
    for (var i = 0u; i < params.len; i++) {
        if (params.normalize == 0u || !precedes(last, Place(key(x[start + i]), i))) {
            sum += exp(x[start + i] - largest);
        }
    }
    for (var i = lane; i < params.len; i += 8u) {
        let chosen = !precedes(last, Place(key(x[start + i]), i));
        gates[start + i] = select(0.0, exp(x[start + i] - largest) / sum, chosen);
    }
}
