// Four elements of a row of bf16 weights, the low half of a word first: bf16 is the upper half of an f32.
alias Packed = vec2<u32>;

fn unpack(p: Packed) -> vec4<f32> {
    let high = vec2<u32>(0xffff0000u);
    let words = vec4<u32>(p << vec2<u32>(16u), p & high);
    return bitcast<vec4<f32>>(words.xzyw);
}

// Packed column j of a row of w, whose rows have `len` elements and are padded to a multiple of four.
fn four_of_row(row: u32, j: u32, len: u32) -> vec4<f32> {
    return unpack(w[row * ((len + 3u) / 4u) + j]);
}

// Packed columns 2 * j and 2 * j + 1 of a row: eight elements, zeros past the row's end.
fn eight_of_row(row: u32, j: u32, len: u32) -> mat2x4<f32> {
    let last = (len + 3u) / 4u - 1u;
    let second = four_of_row(row, min(2u * j + 1u, last), len);
    return mat2x4<f32>(four_of_row(row, 2u * j, len), select(vec4<f32>(), second, 2u * j < last));
}

// No block has a scale: `unscaled_of_row` gives the elements themselves.
const SCALED = false;

fn unscaled_of_row(row: u32, j: u32, len: u32) -> mat2x4<f32> {
    return eight_of_row(row, j, len);
}

fn scale_of_row(row: u32, block: u32, len: u32) -> f32 {
    return 1.0;
}

// Eight neighbouring elements are more than one load: lanes that share a row take fours instead, so that neighbouring lanes load
// neighbouring fours.
const SPLIT = true;
