// Sums over k of a block of rows of x times four rows of w, which are laid out as `weight` defines. Where a block extends
// beyond the last row, it computes some other row, whose sums are not stored.
// The order of reduction is ascending over k in groups of four, within blocks of 32 terms where the weight has a scale for
// each: it depends only on k and the format, never on the block of rows.
// The eight lanes of a workgroup compute the same rows of x, and reach each function here together: `spread` may let them share
// what they load of x.
// Needs `x: array<X>` and `terms`, `w: array<Packed>` and `weight`, `spread`, ROWS (1, 2, 4 or 8 rows of x), `rows_of_w()`, the number of
// rows of w, and in `params` the number of rows of x, `rows`, and the length `k` of both.
const FOUR = vec4<u32>(0u, 1u, 2u, 3u);

// Groups of four terms, and pairs of groups, in a block of 32 terms.
const GROUPS = 8u;
const PAIRS = 4u;

// The number of groups of four terms.
fn groups_of_k() -> u32 {
    return (params.k + 3u) / 4u;
}

fn in_x(rows: vec4<u32>) -> vec4<u32> {
    return min(rows, vec4<u32>(params.rows - 1u));
}

// Four rows of w from n on.
fn in_w(n: u32) -> vec4<u32> {
    return min(n + FOUR, vec4<u32>(rows_of_w() - 1u));
}

// Eight terms of four rows of w, transposed: multiplied by four terms of a row of x, each half gives a sum for each row of w.
struct Pair {
    first: mat4x4<f32>,
    second: mat4x4<f32>,
}

fn pair_of_w(n: vec4<u32>, j: u32) -> Pair {
    let a = unscaled_of_row(n.x, j, params.k);
    let b = unscaled_of_row(n.y, j, params.k);
    let c = unscaled_of_row(n.z, j, params.k);
    let d = unscaled_of_row(n.w, j, params.k);
    return Pair(transpose(mat4x4<f32>(a[0], b[0], c[0], d[0])), transpose(mat4x4<f32>(a[1], b[1], c[1], d[1])));
}

// The scales of a block of 32 terms of four rows of w.
fn scales_of_w(n: vec4<u32>, block: u32) -> vec4<f32> {
    let k = params.k;
    return vec4<f32>(
        scale_of_row(n.x, block, k), scale_of_row(n.y, block, k), scale_of_row(n.z, block, k), scale_of_row(n.w, block, k),
    );
}

// A number for each of up to eight rows of x by four rows of w, or four terms of each row of x: a column for each row of x.
struct Block {
    a: mat4x4<f32>,
    b: mat4x4<f32>,
}

// The first four rows of x, and the second four. Only the first ROWS of the eight are read.
struct Rows {
    a: vec4<u32>,
    b: vec4<u32>,
}

// Rows of x from r on.
fn rows_from(r: u32) -> Rows {
    return Rows(in_x(r + FOUR), in_x(r + 4u + FOUR));
}

// Adds eight terms, pair number `pair` of a block of 32, to the sums.
fn add_pair(sums: Block, held: Block, rows: Rows, n: vec4<u32>, block: u32, pair: u32) -> Block {
    let w = pair_of_w(n, PAIRS * block + pair);
    let i = 2u * pair;
    var s = sums;
    s.a[0] = s.a[0] + w.first * term(held.a[0], rows.a.x, block, i) + w.second * term(held.a[0], rows.a.x, block, i + 1u);
    if (ROWS > 1u) {
        s.a[1] = s.a[1] + w.first * term(held.a[1], rows.a.y, block, i) + w.second * term(held.a[1], rows.a.y, block, i + 1u);
    }
    if (ROWS > 2u) {
        s.a[2] = s.a[2] + w.first * term(held.a[2], rows.a.z, block, i) + w.second * term(held.a[2], rows.a.z, block, i + 1u);
        s.a[3] = s.a[3] + w.first * term(held.a[3], rows.a.w, block, i) + w.second * term(held.a[3], rows.a.w, block, i + 1u);
    }
    if (ROWS > 4u) {
        s.b[0] = s.b[0] + w.first * term(held.b[0], rows.b.x, block, i) + w.second * term(held.b[0], rows.b.x, block, i + 1u);
        s.b[1] = s.b[1] + w.first * term(held.b[1], rows.b.y, block, i) + w.second * term(held.b[1], rows.b.y, block, i + 1u);
        s.b[2] = s.b[2] + w.first * term(held.b[2], rows.b.z, block, i) + w.second * term(held.b[2], rows.b.z, block, i + 1u);
        s.b[3] = s.b[3] + w.first * term(held.b[3], rows.b.w, block, i) + w.second * term(held.b[3], rows.b.w, block, i + 1u);
    }
    return s;
}

// What this lane holds of a block of 32 terms of each row of x.
fn hold_rows(rows: Rows, block: u32, lane: u32) -> Block {
    var held = Block();
    held.a[0] = hold(rows.a.x, block, lane);
    if (ROWS > 1u) {
        held.a[1] = hold(rows.a.y, block, lane);
    }
    if (ROWS > 2u) {
        held.a[2] = hold(rows.a.z, block, lane);
        held.a[3] = hold(rows.a.w, block, lane);
    }
    if (ROWS > 4u) {
        held.b[0] = hold(rows.b.x, block, lane);
        held.b[1] = hold(rows.b.y, block, lane);
        held.b[2] = hold(rows.b.z, block, lane);
        held.b[3] = hold(rows.b.w, block, lane);
    }
    return held;
}

// `sums` plus the products of a block, each row of w times its scale.
fn add_scaled(sums: mat4x4<f32>, part: mat4x4<f32>, scales: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        sums[0] + part[0] * scales, sums[1] + part[1] * scales, sums[2] + part[2] * scales, sums[3] + part[3] * scales,
    );
}

// The sums of ROWS rows of x by four rows of w from n on.
fn rows_by_four(rows: Rows, n: u32, lane: u32) -> Block {
    let columns = in_w(n);
    var sums = Block();
    let pairs = (groups_of_k() + 1u) / 2u;
    for (var first = 0u; first < pairs; first += PAIRS) {
        let block = first / PAIRS;
        let held = hold_rows(rows, block, lane);
        var part = sums;
        if (SCALED) {
            part = Block();
        }
        for (var pair = 0u; pair < min(pairs - first, PAIRS); pair++) {
            part = add_pair(part, held, rows, columns, block, pair);
        }
        if (SCALED) {
            let scales = scales_of_w(columns, block);
            sums.a = add_scaled(sums.a, part.a, scales);
            if (ROWS > 4u) {
                sums.b = add_scaled(sums.b, part.b, scales);
            }
        } else {
            sums = part;
        }
    }
    return sums;
}
