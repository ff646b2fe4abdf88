// Four elements of a row of bf16 weights, the low half of a word first: bf16 is the upper half of an f32.
alias Packed = vec2<u32>;

#import w_at

fn unpack(p: Packed) -> vec4<f32> {
    let high = vec2<u32>(0xffff0000u);
    let words = vec4<u32>(p << vec2<u32>(16u), p & high);
    return bitcast<vec4<f32>>(words.xzyw);
}

// Packed column j of a row of w, whose rows have `len` elements and are padded to a multiple of four.
fn four_of_row(row: u32, j: u32, len: u32) -> vec4<f32> {
    return unpack(w_at(row * ((len + 3u) / 4u) + j));
}

#import eight_by_fours

#import unscaled
