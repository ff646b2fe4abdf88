// Elements of a row in Q8_0: all signed bytes of the row, then one scale in f16 for each 32 of them, padded to eight bytes.
// Rows have a multiple of 32 elements. An element is its byte times its scale, which f32 holds exactly.
alias Packed = vec2<u32>;

// Where a row starts, in groups of eight bytes, and where its scales do.
fn start_of_row(row: u32, len: u32) -> u32 {
    return row * (len / 8u + (len / 32u + 3u) / 4u);
}

// The scale of packed column j of eight elements.
fn scale_of(start: u32, j: u32, len: u32) -> f32 {
    let block = j / 4u;
    let four = w[start + len / 8u + block / 4u];
    let two = unpack2x16float(select(four.x, four.y, (block & 2u) == 2u));
    return select(two.x, two.y, (block & 1u) == 1u);
}

fn unpack(p: u32, scale: f32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(p)) * scale;
}

// Packed columns 2 * j and 2 * j + 1 of a row of w: eight elements.
fn eight_of_row(row: u32, j: u32, len: u32) -> mat2x4<f32> {
    let start = start_of_row(row, len);
    let scale = scale_of(start, j, len);
    let p = w[start + j];
    return mat2x4<f32>(unpack(p.x, scale), unpack(p.y, scale));
}

// Packed column j: four elements.
fn four_of_row(row: u32, j: u32, len: u32) -> vec4<f32> {
    let start = start_of_row(row, len);
    let p = w[start + j / 2u];
    return unpack(select(p.x, p.y, j % 2u == 1u), scale_of(start, j / 2u, len));
}
