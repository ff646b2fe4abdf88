// y[row, column + n] = sum over k of x[row, k] * w[n, k] + bias[n], a block of rows and columns per invocation. Where
// a block extends beyond the last row or column, it computes that one again and stores nothing. The order of reduction
// is that of `product`. Products of one x with several weights may run side by side, each in workgroups of its own.
struct Params {
    rows: u32,
    k: u32,
    // Whether there is a bias. Without one, another buffer is bound in its place.
    biased: u32,
    unused: u32,
    // For each side: the number of rows of this piece of w, the column of y that the first of them computes, the length of a
    // row of y, and the number of workgroups along x.
    sides: array<vec4<u32>, SIDES>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read> w: array<Packed>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Rows of the output that an invocation of `sequential`, or a group of lanes of `gemv_lanes`, computes. It does not change the order of
// sums.
override ROWS: u32 = 1u;

#import sides

#import put

fn rows_of_w() -> u32 {
    return params.sides[side].x;
}

#import terms

#import weight

#import spread

#import product

fn store(row: u32, n: u32, sums: vec4<f32>) {
    if (row >= params.rows) {
        return;
    }
    for (var i = 0u; i < 4u && n + i < rows_of_w(); i++) {
        let column = params.sides[side].y + n + i;
        var sum = sums[i];
        if (params.biased == 1u) {
            sum += bias_at(column);
        }
        put(row * params.sides[side].z + column, sum);
    }
}

fn store_four(row: u32, n: u32, sums: mat4x4<f32>) {
    store(row, n, sums[0]);
    store(row + 1u, n, sums[1]);
    store(row + 2u, n, sums[2]);
    store(row + 3u, n, sums[3]);
}

// For software drivers: ROWS rows and four columns per invocation.
@compute @workgroup_size(8)
fn sequential(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = 4u * (8u * within_side(group.x) + lane);
    let row = ROWS * group.y;
    let sums = rows_by_four(rows_from(row), n, lane);
    store(row, n, sums.a[0]);
    if (ROWS > 1u) {
        store(row + 1u, n, sums.a[1]);
    }
    if (ROWS > 2u) {
        store(row + 2u, n, sums.a[2]);
        store(row + 3u, n, sums.a[3]);
    }
    if (ROWS > 4u) {
        store_four(row + 4u, n, sums.b);
    }
}

// ---- By lanes: the lanes of a workgroup share one sum, or stage a tile of both inputs in workgroup memory. ----

// Lanes that share the sum of one output. Another number would change the order of sums, and with it the last bits.
const LANES = 32u;

// Columns of the output that each group of lanes computes: COLUMNS * ROWS is at most 8. It does not change the order of sums.
override COLUMNS: u32 = 1u;

// Steps over k whose loads a lane begins before it adds up the first: while it waits for one it waits for all. AHEAD * COLUMNS and
// AHEAD * ROWS are at most 8. It does not change the order of sums.
override AHEAD: u32 = 1u;

// One partial sum per lane of the workgroup, for each row and column of its group.
var<workgroup> partial: array<array<f32, 256>, 8>;

// For calls of up to eight rows. A lane adds two groups of four terms of every 256 terms, with fused multiply-adds. Then the sums
// of the lanes are added in halves: lane 0 adds that of lane 16, then that of lane 8, and so on.
@compute @workgroup_size(256)
fn gemv_lanes(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % LANES;
    let n = COLUMNS * (8u * within_side(group.x) + local / LANES);
    let row = ROWS * group.y;
    var sums = array<vec4<f32>, 8>();
    let groups = groups_of_k();
    let step = 2u * LANES;
    // This lane's two groups of four terms in a step.
    for (var first = select(2u * lane, lane, SPLIT); first < groups; first += AHEAD * step) {
        var eight = array<mat2x4<f32>, 8>();
        var weights = array<mat2x4<f32>, 8>();
        for (var a = 0u; a < AHEAD; a++) {
            // A step past the row's end loads the first one again, and adds nothing.
            let one = select(first, first + a * step, first + a * step < groups);
            let two = one + select(1u, LANES, SPLIT);
            for (var r = 0u; r < ROWS; r++) {
                eight[a * ROWS + r] = two_of_x(min(row + r, params.rows - 1u), one, two);
            }
            for (var c = 0u; c < COLUMNS; c++) {
                weights[a * COLUMNS + c] = two_of_w(min(n + c, rows_of_w() - 1u), one, two);
            }
        }
        for (var a = 0u; a < AHEAD; a++) {
            if (first + a * step < groups) {
                for (var c = 0u; c < COLUMNS; c++) {
                    let column = weights[a * COLUMNS + c];
                    for (var r = 0u; r < ROWS; r++) {
                        let terms = eight[a * ROWS + r];
                        let sum = fma(column[0], terms[0], sums[c * ROWS + r]);
                        sums[c * ROWS + r] = fma(column[1], terms[1], sum);
                    }
                }
            }
        }
    }
    for (var i = 0u; i < ROWS * COLUMNS; i++) {
        let sum = sums[i];
        partial[i][local] = (sum.x + sum.y) + (sum.z + sum.w);
    }
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            for (var i = 0u; i < ROWS * COLUMNS; i++) {
                partial[i][local] += partial[i][local + half];
            }
        }
    }
    workgroupBarrier();
    if (lane < ROWS * COLUMNS) {
        store_one(row + lane % ROWS, n + lane / ROWS, partial[lane][local - lane]);
    }
}

// Two groups of four terms of a row of x, the second with zeros past the row's end.
fn two_of_x(row: u32, one: u32, two: u32) -> mat2x4<f32> {
    let last = groups_of_k() - 1u;
    return mat2x4<f32>(row_of_x(row, one), select(vec4<f32>(), row_of_x(row, min(two, last)), two <= last));
}

// The same of a row of w.
fn two_of_w(n: u32, one: u32, two: u32) -> mat2x4<f32> {
    if (SPLIT) {
        let last = groups_of_k() - 1u;
        let second = four_of_row(n, min(two, last), params.k);
        return mat2x4<f32>(four_of_row(n, one, params.k), select(vec4<f32>(), second, two <= last));
    }
    return eight_of_row(n, one / 2u, params.k);
}

fn store_one(row: u32, n: u32, sum: f32) {
    if (row < params.rows && n < rows_of_w()) {
        let column = params.sides[side].y + n;
        var total = sum;
        if (params.biased == 1u) {
            total += bias_at(column);
        }
        put(row * params.sides[side].z + column, total);
    }
}

// 16 terms of up to 128 rows of x and of w, as [term][four rows]: each vector holds one term of four rows. As arrays of arrays their
// checks of bounds are of numbers that the inner loop leaves as they are.
const DEPTH = 16u;
var<workgroup> tile_x: array<array<vec4<f32>, 32>, DEPTH>;
var<workgroup> tile_w: array<array<vec4<f32>, 32>, DEPTH>;

// Four terms of four rows of x or of w, from packed column j on, transposed, with zeros past k. They are loaded into
// registers while the previous terms are added, which hides the wait for memory.
fn terms_of_x(first: u32, j: u32) -> mat4x4<f32> {
    if (j < (params.k + 3u) / 4u) {
        let r = in_x(first + FOUR);
        return transpose(mat4x4<f32>(row_of_x(r.x, j), row_of_x(r.y, j), row_of_x(r.z, j), row_of_x(r.w, j)));
    }
    return mat4x4<f32>();
}

fn terms_of_w(first: u32, j: u32) -> mat4x4<f32> {
    if (j < (params.k + 3u) / 4u) {
        let n = in_w(first);
        let k = params.k;
        return transpose(mat4x4<f32>(
            four_of_row(n.x, j, k), four_of_row(n.y, j, k), four_of_row(n.z, j, k), four_of_row(n.w, j, k),
        ));
    }
    return mat4x4<f32>();
}

// Adds one term to the sums of four rows of x (the columns of the matrix) by four rows of w.
fn add_term(sums: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        fma(a.xxxx, b, sums[0]), fma(a.yyyy, b, sums[1]), fma(a.zzzz, b, sums[2]), fma(a.wwww, b, sums[3]),
    );
}

// For calls of more rows: a tile of 64 rows by 64 columns per workgroup, four by four per invocation. Each output adds
// its terms in ascending order, as in the larger tile, so both give the same bits.
@compute @workgroup_size(256)
fn gemm_tiles_64(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = 64u * group.y;
    let n = 64u * within_side(group.x);
    let across = local % 16u;
    let down = local / 16u;
    // The first 64 invocations stage x, the next 64 stage w, each four terms of four rows.
    let block = local % 4u;
    let staged = local / 4u % 16u;
    var terms = mat4x4<f32>();
    if (local < 64u) {
        terms = terms_of_x(row + 4u * staged, block);
    } else if (local < 128u) {
        terms = terms_of_w(n + 4u * staged, block);
    }
    var sums = mat4x4<f32>();
    for (var j = 0u; j < (params.k + 3u) / 4u; j += DEPTH / 4u) {
        for (var i = 0u; i < 4u; i++) {
            if (local < 64u) {
                tile_x[4u * block + i][staged] = terms[i];
            } else if (local < 128u) {
                tile_w[4u * block + i][staged] = terms[i];
            }
        }
        workgroupBarrier();
        if (local < 64u) {
            terms = terms_of_x(row + 4u * staged, j + DEPTH / 4u + block);
        } else if (local < 128u) {
            terms = terms_of_w(n + 4u * staged, j + DEPTH / 4u + block);
        }
        for (var term = 0u; term < DEPTH; term++) {
            sums = add_term(sums, tile_x[term][down], tile_w[term][across]);
        }
        workgroupBarrier();
    }
    store_four(row + 4u * down, n + 4u * across, sums);
}

// For many rows: a tile of 128 by 128 per workgroup, two by two blocks of four by four per invocation.
@compute @workgroup_size(256)
fn gemm_tiles_128(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = 128u * group.y;
    let n = 128u * within_side(group.x);
    let across = local % 16u;
    let down = local / 16u;
    var a = mat4x4<f32>();
    var b = mat4x4<f32>();
    var c = mat4x4<f32>();
    var d = mat4x4<f32>();
    // The first half of the invocations stages x, the second half w, each four terms of four rows.
    let block = local % 4u;
    let staged = local / 4u % 32u;
    var terms = mat4x4<f32>();
    if (local < 128u) {
        terms = terms_of_x(row + 4u * staged, block);
    } else {
        terms = terms_of_w(n + 4u * staged, block);
    }
    for (var j = 0u; j < (params.k + 3u) / 4u; j += DEPTH / 4u) {
        for (var i = 0u; i < 4u; i++) {
            if (local < 128u) {
                tile_x[4u * block + i][staged] = terms[i];
            } else {
                tile_w[4u * block + i][staged] = terms[i];
            }
        }
        workgroupBarrier();
        if (local < 128u) {
            terms = terms_of_x(row + 4u * staged, j + DEPTH / 4u + block);
        } else {
            terms = terms_of_w(n + 4u * staged, j + DEPTH / 4u + block);
        }
        for (var term = 0u; term < DEPTH; term++) {
            let x0 = tile_x[term][down];
            let x1 = tile_x[term][16u + down];
            let w0 = tile_w[term][across];
            let w1 = tile_w[term][16u + across];
            a = add_term(a, x0, w0);
            b = add_term(b, x0, w1);
            c = add_term(c, x1, w0);
            d = add_term(d, x1, w1);
        }
        workgroupBarrier();
    }
    store_four(row + 4u * down, n + 4u * across, a);
    store_four(row + 4u * down, n + 64u + 4u * across, b);
    store_four(row + 64u + 4u * down, n + 4u * across, c);
    store_four(row + 64u + 4u * down, n + 64u + 4u * across, d);
}
