// y[row, column + n] = sum over k of x[row, k] * w[n, k] + bias[n], a block of rows and columns per invocation.
// w's rows are packed and padded to four elements, x's are not. A block that overhangs repeats the last row or column.
// The order of reduction is over k in fours, one after another: it depends on k alone, never on the block.
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

fn element(start: u32, i: u32) -> f32 {
    return select(0.0, vec4<f32>(x[start + min(i, params.k - 1u)]).x, i < params.k);
}

fn row_of_x(r: u32, j: u32) -> vec4<f32> {
    let row = min(r, params.rows - 1u);
    if (SCALAR == 0u) {
        return vec4<f32>(x[row * (params.k / 4u) + j]);
    }
    let s = row * params.k;
    let i = 4u * j;
    return vec4<f32>(element(s, i), element(s, i + 1u), element(s, i + 2u), element(s, i + 3u));
}

// Four rows of x at packed column j, as the columns of a matrix.
fn four_of_x(r: u32, j: u32) -> mat4x4<f32> {
    return mat4x4<f32>(row_of_x(r, j), row_of_x(r + 1u, j), row_of_x(r + 2u, j), row_of_x(r + 3u, j));
}

fn row_of_w(n: u32, j: u32) -> vec4<f32> {
    return unpack(w[min(n, params.columns - 1u) * ((params.k + 3u) / 4u) + j]);
}

// Four rows of w at packed column j, transposed: times a row of x it gives four addends of y.
fn four_of_w(n: u32, j: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(row_of_w(n, j), row_of_w(n + 1u, j), row_of_w(n + 2u, j), row_of_w(n + 3u, j)));
}

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
    var sums = vec4<f32>();
    for (var j = 0u; j < (params.k + 3u) / 4u; j++) {
        sums += four_of_w(n, j) * row_of_x(group.y, j);
    }
    store(group.y, n, sums);
}

// For few rows: four rows, four columns per invocation.
@compute @workgroup_size(8)
fn skinny(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = 4u * (8u * group.x + lane);
    let row = 4u * group.y;
    var sums = mat4x4<f32>();
    for (var j = 0u; j < (params.k + 3u) / 4u; j++) {
        sums += four_of_w(n, j) * four_of_x(row, j);
    }
    store_four(row, n, sums);
}

// For many rows: eight rows, eight columns per invocation.
@compute @workgroup_size(8)
fn gemm(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = 8u * (8u * group.x + lane);
    let row = 8u * group.y;
    var a = mat4x4<f32>();
    var b = mat4x4<f32>();
    var c = mat4x4<f32>();
    var d = mat4x4<f32>();
    for (var j = 0u; j < (params.k + 3u) / 4u; j++) {
        let x0 = four_of_x(row, j);
        let x1 = four_of_x(row + 4u, j);
        let w0 = four_of_w(n, j);
        let w1 = four_of_w(n + 4u, j);
        a += w0 * x0;
        b += w1 * x0;
        c += w0 * x1;
        d += w1 * x1;
    }
    store_four(row, n, a);
    store_four(row, n + 4u, b);
    store_four(row + 4u, n, c);
    store_four(row + 4u, n + 4u, d);
}
