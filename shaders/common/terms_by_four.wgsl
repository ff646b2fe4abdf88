// Group j of four terms of a row of x, whose rows are a multiple of four elements.
alias X = vec4<f32>;

fn row_of_x(r: u32, j: u32) -> vec4<f32> {
    return x[r * (params.k / 4u) + j];
}
