// Eight elements of a weight that is loaded four at a time. Needs `four_of_row`.

// Packed columns 2 * j and 2 * j + 1 of a row: eight elements, zeros past the row's end.
fn eight_of_row(row: u32, j: u32, len: u32) -> mat2x4<f32> {
    let last = (len + 3u) / 4u - 1u;
    let second = four_of_row(row, min(2u * j + 1u, last), len);
    return mat2x4<f32>(four_of_row(row, 2u * j, len), select(vec4<f32>(), second, 2u * j < last));
}

// Eight neighbouring elements are more than one load: lanes that share a row take fours instead, so that neighbouring lanes load
// neighbouring fours.
const SPLIT = true;
