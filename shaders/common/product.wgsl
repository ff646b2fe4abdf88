// Sums over k of a block of rows of x times a block of rows of w, which are laid out as `weight` defines. Where a
// block extends beyond the last row, it computes some other row, whose sums are not stored.
// The order of reduction is ascending over k in groups of four: it depends only on k, never on the block.
// Needs `x: array<X>`, `w: array<Packed>`, `weight`, SCALAR, and in `params` the numbers of rows of x and w, `rows`
// and `columns`, and the length `k` of both.
const FOUR = vec4<u32>(0u, 1u, 2u, 3u);

fn element(start: u32, i: u32) -> f32 {
    return select(0.0, vec4<f32>(x[start + min(i, params.k - 1u)]).x, i < params.k);
}

fn row_of_x(r: u32, j: u32) -> vec4<f32> {
    if (SCALAR == 0u) {
        return vec4<f32>(x[r * (params.k / 4u) + j]);
    }
    let s = r * params.k;
    let i = 4u * j;
    return vec4<f32>(element(s, i), element(s, i + 1u), element(s, i + 2u), element(s, i + 3u));
}

// Four rows of x at packed column j, as the columns of a matrix.
fn four_of_x(r: vec4<u32>, j: u32) -> mat4x4<f32> {
    return mat4x4<f32>(row_of_x(r.x, j), row_of_x(r.y, j), row_of_x(r.z, j), row_of_x(r.w, j));
}

fn row_of_w(n: u32, j: u32) -> vec4<f32> {
    return four_of_row(n, j, params.k);
}

// Four rows of w at packed column j, transposed: multiplied by a row of x it gives four terms.
fn four_of_w(n: vec4<u32>, j: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(row_of_w(n.x, j), row_of_w(n.y, j), row_of_w(n.z, j), row_of_w(n.w, j)));
}

fn in_x(rows: vec4<u32>) -> vec4<u32> {
    return min(rows, vec4<u32>(params.rows - 1u));
}

// Four rows of w from n on.
fn in_w(n: u32) -> vec4<u32> {
    return min(n + FOUR, vec4<u32>(params.columns - 1u));
}

// The sums of one row of x by four rows of w from n on.
fn one_by_four(row: u32, n: u32) -> vec4<f32> {
    let columns = in_w(n);
    var sums = vec4<f32>();
    for (var j = 0u; j < (params.k + 3u) / 4u; j++) {
        sums += four_of_w(columns, j) * row_of_x(row, j);
    }
    return sums;
}

// The sums of four rows of x by four rows of w from n on: one column of the matrix per row of x.
fn four_by_four(r: vec4<u32>, n: u32) -> mat4x4<f32> {
    let rows = in_x(r);
    let columns = in_w(n);
    var sums = mat4x4<f32>();
    for (var j = 0u; j < (params.k + 3u) / 4u; j++) {
        sums += four_of_w(columns, j) * four_of_x(rows, j);
    }
    return sums;
}

// The sums of eight rows of x by eight rows of w: the first four of x by both halves of w, then the second four.
struct Eight {
    a: mat4x4<f32>,
    b: mat4x4<f32>,
    c: mat4x4<f32>,
    d: mat4x4<f32>,
}

fn eight_by_eight(r0: vec4<u32>, r1: vec4<u32>, n: u32) -> Eight {
    let rows0 = in_x(r0);
    let rows1 = in_x(r1);
    let columns0 = in_w(n);
    let columns1 = in_w(n + 4u);
    var a = mat4x4<f32>();
    var b = mat4x4<f32>();
    var c = mat4x4<f32>();
    var d = mat4x4<f32>();
    for (var j = 0u; j < (params.k + 3u) / 4u; j++) {
        let x0 = four_of_x(rows0, j);
        let x1 = four_of_x(rows1, j);
        let w0 = four_of_w(columns0, j);
        let w1 = four_of_w(columns1, j);
        a += w0 * x0;
        b += w1 * x0;
        c += w0 * x1;
        d += w1 * x1;
    }
    return Eight(a, b, c, d);
}
