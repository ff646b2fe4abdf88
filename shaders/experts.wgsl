// Products of tokens with the weight rows of those experts whose gate is not 0. Experts with a gate of 0 cost nothing.
// up: y[token, e, n] = sum over k of x[token, k] * w[e, n, k], and 0 where the gate is 0.
// down: y[token, n] = sum over e of gate[token, e] * (sum over k of x[token, e, k] * w[e, n, k]).
// A piece of a wide w holds a range of its rows, of one or several experts. The order of reduction is that of
// `product`, then over the experts in ascending order, across pieces as well.
struct Params {
    // The number of rows of x, the number of rows of this piece of w, and their length, for `product`. A row of x
    // belongs to a token, for down to a token and an expert.
    rows: u32,
    columns: u32,
    k: u32,
    // The first row of this piece of w, and the rows of each expert.
    start: u32,
    width: u32,
    experts: u32,
    tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read> w: array<Packed>;
@group(0) @binding(3) var<storage, read> gates: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Tokens among which one invocation of `down_many` searches for four that have an expert in common.
const TOKENS = 32u;

// Rows of x that an invocation computes at a time.
override ROWS: u32;

fn rows_of_w() -> u32 {
    return params.columns;
}

#import terms

#import weight

#import spread

#import product

fn gate(token: u32, e: u32) -> f32 {
    return gates[token * params.experts + e];
}

// The row of this piece that is row n of expert e. If the piece starts after that row, the subtraction wraps around
// to a large number, for which `lies_here` is false.
fn row(e: u32, n: u32) -> u32 {
    return e * params.width + n - params.start;
}

fn lies_here(e: u32, n: u32) -> bool {
    return n < params.width && row(e, n) < params.columns;
}

fn store(token: u32, e: u32, n: u32, sums: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if (lies_here(e, n + i)) {
            y[(token * params.experts + e) * params.width + n + i] = sums[i];
        }
    }
}

// The expert that a workgroup of `up` computes: z counts the experts that have rows in this piece.
fn expert_of(group: vec3<u32>) -> u32 {
    return params.start / params.width + group.z;
}

// For one token: four columns of one expert per invocation.
@compute @workgroup_size(8)
fn up_one(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = expert_of(group);
    let n = 4u * (8u * group.x + lane);
    var sums = vec4<f32>();
    if (gate(0u, e) != 0.0) {
        sums = rows_by_four(Rows(), row(e, n), lane).a[0];
    }
    store(0u, e, n, sums);
}

// For several tokens: four columns of one expert per invocation. Of the tokens that chose the expert, workgroup y
// computes the eight from number 8 * y on, wherever they are in the call. It also writes the zeros of those among
// tokens 8 * y to 8 * y + 7 of the call that did not choose the expert.
@compute @workgroup_size(8)
fn up_many(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = expert_of(group);
    let n = 4u * (8u * group.x + lane);
    let first = 8u * group.y;
    var found = array<u32, 8>();
    var seen = 0u;
    for (var token = 0u; token < params.tokens; token++) {
        if (gate(token, e) == 0.0) {
            if (token / 8u == group.y) {
                store(token, e, n, vec4<f32>());
            }
        } else {
            if (seen >= first && seen < first + 8u) {
                found[seen - first] = token;
            }
            seen++;
        }
    }
    if (seen <= first) {
        return;
    }
    let a = vec4<u32>(found[0], found[1], found[2], found[3]);
    let b = vec4<u32>(found[4], found[5], found[6], found[7]);
    var sums = rows_by_four(Rows(a, b), row(e, n), lane);
    for (var i = 0u; i < min(seen - first, 8u); i++) {
        if (i < 4u) {
            store(found[i], e, n, sums.a[i]);
        } else {
            store(found[i], e, n, sums.b[i - 4u]);
        }
    }
}

// Zeroes the output before the first piece of a weight that is split over several buffers; later pieces add to it.
fn clear(token: u32, n: u32) {
    for (var i = 0u; i < 4u && n + i < params.width && params.start == 0u; i++) {
        y[token * params.width + n + i] = 0.0;
    }
}

// Adds one expert's sums to the output. No other invocation writes these elements, so experts are added in order.
fn add(token: u32, e: u32, n: u32, sums: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if (lies_here(e, n + i)) {
            y[token * params.width + n + i] += gate(token, e) * sums[i];
        }
    }
}

// One past the last expert with rows in this piece.
fn experts_end() -> u32 {
    return (params.start + params.columns + params.width - 1u) / params.width;
}

// For one token: four columns per invocation.
@compute @workgroup_size(8)
fn down_one(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = 4u * (8u * group.x + lane);
    clear(0u, n);
    for (var e = params.start / params.width; e < experts_end(); e++) {
        if (gate(0u, e) != 0.0) {
            add(0u, e, n, rows_by_four(Rows(vec4<u32>(e), vec4<u32>()), row(e, n), lane).a[0]);
        }
    }
}

// For several tokens: four columns per invocation, for a block of tokens. The tokens with an expert are computed four
// at a time.
@compute @workgroup_size(8)
fn down_many(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = 4u * (8u * group.x + lane);
    let end = min(TOKENS * (group.y + 1u), params.tokens);
    for (var token = TOKENS * group.y; token < end; token++) {
        clear(token, n);
    }
    for (var e = params.start / params.width; e < experts_end(); e++) {
        var found = vec4<u32>();
        var count = 0u;
        for (var token = TOKENS * group.y; token < end; token++) {
            if (gate(token, e) != 0.0) {
                found[count] = token;
                count++;
            }
            if (count == 4u || (count > 0u && token + 1u == end)) {
                var sums = rows_by_four(Rows(in_x(found * params.experts + e), vec4<u32>()), row(e, n), lane).a;
                for (var i = 0u; i < count; i++) {
                    add(found[i], e, n, sums[i]);
                }
                count = 0u;
            }
        }
    }
}
