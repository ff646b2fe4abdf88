// Four elements of a row of f16 weights, the low half of a word first.
alias Packed = vec2<u32>;

fn unpack(p: Packed) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y));
}
