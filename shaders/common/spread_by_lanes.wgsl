// The terms of a row of x, shared by the eight lanes of a workgroup: each lane loads one group of four of a block of 32, and gives it to
// the others. For devices whose subgroups have eight lanes or more.

// The group of a block that lane `lane` holds; zeros past the end of the row.
fn hold(row: u32, block: u32, lane: u32) -> vec4<f32> {
    let j = GROUPS * block + lane;
    let last = groups_of_k() - 1u;
    return select(vec4<f32>(), row_of_x(row, min(j, last)), j <= last);
}

// Group i of a block, from the lane that holds it.
fn term(held: vec4<f32>, row: u32, block: u32, i: u32) -> vec4<f32> {
    return subgroupShuffle(held, i);
}
