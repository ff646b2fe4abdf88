// Eight elements of a row of bf16 weights, the low half of a word first. For rows whose length is a multiple of eight:
// eight elements are then one load of 16 bytes, the size of WGSL's widest vector.
alias Packed = vec4<u32>;

#import w_at

fn unpack(p: vec2<u32>) -> vec4<f32> {
    let high = vec2<u32>(0xffff0000u);
    let words = vec4<u32>(p << vec2<u32>(16u), p & high);
    return bitcast<vec4<f32>>(words.xzyw);
}

// Packed columns 2 * j and 2 * j + 1 of a row of w, whose rows have `len` elements.
fn eight_of_row(row: u32, j: u32, len: u32) -> mat2x4<f32> {
    let p = w_at(row * (len / 8u) + j);
    return mat2x4<f32>(unpack(p.xy), unpack(p.zw));
}

// Packed column j: four elements.
fn four_of_row(row: u32, j: u32, len: u32) -> vec4<f32> {
    let p = w_at(row * (len / 8u) + j / 2u);
    return unpack(select(p.xy, p.zw, j % 2u == 1u));
}

#import unscaled

// Eight neighbouring elements are one load.
const SPLIT = false;
