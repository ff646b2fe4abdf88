// y[row, column + n] = sum over k of x[row, k] * w[n, k] + bias[n], a block of rows and columns per invocation.
// A block that overhangs repeats the last row or column. The order of reduction is that of `product`.
struct Params {
    rows: u32,
    // Rows of this piece of w, and where they stand in a row of y.
    columns: u32,
    column: u32,
    stride: u32,
    k: u32,
    // Whether there is a bias: without one its binding is a stand-in.
    biased: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read> w: array<Packed>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// 1 where k is no multiple of four: x is then bound as single elements.
override SCALAR: u32;

#import weight

#import product

fn store(row: u32, n: u32, sums: vec4<f32>) {
    if (row >= params.rows) {
        return;
    }
    for (var i = 0u; i < 4u && n + i < params.columns; i++) {
        let column = params.column + n + i;
        var sum = sums[i];
        if (params.biased == 1u) {
            sum += bias[column];
        }
        y[row * params.stride + column] = sum;
    }
}

fn store_four(row: u32, n: u32, sums: mat4x4<f32>) {
    store(row, n, sums[0]);
    store(row + 1u, n, sums[1]);
    store(row + 2u, n, sums[2]);
    store(row + 3u, n, sums[3]);
}

// For one row: four columns per invocation.
@compute @workgroup_size(8)
fn gemv(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = 4u * (8u * group.x + lane);
    store(group.y, n, one_by_four(group.y, n));
}

// For few rows: four rows, four columns per invocation.
@compute @workgroup_size(8)
fn skinny(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = 4u * (8u * group.x + lane);
    let row = 4u * group.y;
    store_four(row, n, four_by_four(row + FOUR, n));
}

// For many rows: eight rows, eight columns per invocation.
@compute @workgroup_size(8)
fn gemm(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = 8u * (8u * group.x + lane);
    let row = 8u * group.y;
    let sums = eight_by_eight(row + FOUR, row + 4u + FOUR, n);
    store_four(row, n, sums.a);
    store_four(row, n + 4u, sums.b);
    store_four(row + 4u, n, sums.c);
    store_four(row + 4u, n + 4u, sums.d);
}
