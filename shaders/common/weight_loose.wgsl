// Rows of f32 without padding between them: an activation in the place of a weight. The length of a row is not a
// multiple of four, so elements are read one by one, and the last group of four is filled up with zeros.
alias Packed = f32;

fn four_of_row(row: u32, j: u32, len: u32) -> vec4<f32> {
    let start = row * len;
    let column = 4u * j + vec4<u32>(0u, 1u, 2u, 3u);
    let i = start + min(column, vec4<u32>(len - 1u));
    return select(vec4<f32>(), vec4<f32>(w[i.x], w[i.y], w[i.z], w[i.w]), column < vec4<u32>(len));
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
