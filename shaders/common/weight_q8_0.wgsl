// Elements of a row in Q8_0: all signed bytes of the row, then one scale in f16 for each 32 of them, padded to 32 bytes.
// Rows have a multiple of 32 elements. An element is its byte times its scale, which f32 holds exactly.
alias Packed = vec2<u32>;

#import w_at

// Where a row starts, in groups of eight bytes, and where its scales do.
fn start_of_row(row: u32, len: u32) -> u32 {
    return row * ((len + len / 16u + 31u) / 32u * 4u);
}

// Blocks have a scale, by which what `unscaled_of_row` gives is to be multiplied.
const SCALED = true;

// The scale of a block of 32 elements.
fn scale_of_row(row: u32, block: u32, len: u32) -> f32 {
    let four = w_at(start_of_row(row, len) + len / 8u + block / 4u);
    let two = unpack2x16float(select(four.x, four.y, (block & 2u) == 2u));
    return select(two.x, two.y, (block & 1u) == 1u);
}

fn unpack(p: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(p));
}

// The bytes of packed columns 2 * j and 2 * j + 1 of a row of w.
fn unscaled_of_row(row: u32, j: u32, len: u32) -> mat2x4<f32> {
    let p = w_at(start_of_row(row, len) + j);
    return mat2x4<f32>(unpack(p.x), unpack(p.y));
}

// Packed columns 2 * j and 2 * j + 1: eight elements.
fn eight_of_row(row: u32, j: u32, len: u32) -> mat2x4<f32> {
    return scale_of_row(row, j / 4u, len) * unscaled_of_row(row, j, len);
}

// Packed column j: four elements.
fn four_of_row(row: u32, j: u32, len: u32) -> vec4<f32> {
    let p = w_at(start_of_row(row, len) + j / 2u);
    return scale_of_row(row, j / 8u, len) * unpack(select(p.x, p.y, j % 2u == 1u));
}

// Eight neighbouring elements are one load.
const SPLIT = false;
