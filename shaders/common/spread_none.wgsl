// The terms of a row of x, which each lane loads by itself: for devices without subgroups of eight lanes.

fn hold(row: u32, block: u32, lane: u32) -> vec4<f32> {
    return vec4<f32>();
}

// Group i of a block of 32 terms; past the end of the row the last group, which is multiplied by zeros.
fn term(held: vec4<f32>, row: u32, block: u32, i: u32) -> vec4<f32> {
    let j = GROUPS * block + i;
    let last = groups_of_k() - 1u;
    return row_of_x(row, min(j, last));
}
