// Four elements of a row of f32 weights.
alias Packed = vec4<f32>;

#import w_at

fn unpack(p: Packed) -> vec4<f32> {
    return p;
}

// Packed column j of a row of w, whose rows have `len` elements and are padded to a multiple of four.
fn four_of_row(row: u32, j: u32, len: u32) -> vec4<f32> {
    return unpack(w_at(row * ((len + 3u) / 4u) + j));
}

#import eight_by_fours

#import unscaled
