// Group j of four terms of a row of x, whose rows have any length: zeros past the end.
alias X = f32;

fn element(start: u32, i: u32) -> f32 {
    return select(0.0, x[start + min(i, params.k - 1u)], i < params.k);
}

fn row_of_x(r: u32, j: u32) -> vec4<f32> {
    let s = r * params.k;
    let i = 4u * j;
    return vec4<f32>(element(s, i), element(s, i + 1u), element(s, i + 2u), element(s, i + 3u));
}
