// The terms of a row of x, shared by the eight lanes of a workgroup: each lane loads one group of four of a block of 32, and gives it to
// the others. For devices whose subgroups have eight lanes or more.

// The group of a block that lane `lane` holds; zeros past the end of the row.
fn hold(row: u32, block: u32, lane: u32) -> vec4<f32> {
    let j = 8u * block + lane;
    let last = (params.k + 3u) / 4u - 1u;
    return select(vec4<f32>(), row_of_x(row, min(j, last)), j <= last);
}

// Group i of a block, from the lane that holds it. Where i is a constant, one case is left of these.
fn term(held: vec4<f32>, row: u32, block: u32, i: u32) -> vec4<f32> {
    switch (i) {
        case 0u: { return subgroupBroadcast(held, 0u); }
        case 1u: { return subgroupBroadcast(held, 1u); }
        case 2u: { return subgroupBroadcast(held, 2u); }
        case 3u: { return subgroupBroadcast(held, 3u); }
        case 4u: { return subgroupBroadcast(held, 4u); }
        case 5u: { return subgroupBroadcast(held, 5u); }
        case 6u: { return subgroupBroadcast(held, 6u); }
        default: { return subgroupBroadcast(held, 7u); }
    }
}

// Adds the 32 terms of a block. The number of each pair is a constant here, so that a driver knows which lane a term comes from.
fn add_block(sums: Block, held: Block, rows: Rows, n: vec4<u32>, block: u32) -> Block {
    let one = add_pair(sums, held, rows, n, block, 0u);
    let two = add_pair(one, held, rows, n, block, 1u);
    let three = add_pair(two, held, rows, n, block, 2u);
    return add_pair(three, held, rows, n, block, 3u);
}
