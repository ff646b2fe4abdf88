// Rows of f32 without padding between them: an activation in the place of a weight. The length of a row is not a
// multiple of four, so elements are read one by one, and the last group of four is filled up with zeros.
alias Packed = f32;

#import w_at

fn four_of_row(row: u32, j: u32, len: u32) -> vec4<f32> {
    let start = row * len;
    let column = 4u * j + vec4<u32>(0u, 1u, 2u, 3u);
    let i = start + min(column, vec4<u32>(len - 1u));
    return select(vec4<f32>(), vec4<f32>(w_at(i.x), w_at(i.y), w_at(i.z), w_at(i.w)), column < vec4<u32>(len));
}

#import eight_by_fours

#import unscaled
