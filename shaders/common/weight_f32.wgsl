// Four elements of a row of f32 weights.
alias Packed = vec4<f32>;

fn unpack(p: Packed) -> vec4<f32> {
    return p;
}
