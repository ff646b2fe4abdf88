// The number of an invocation, with 64 per workgroup, in the grid that `linear_grid` in src/kernel/mod.rs lays out.
fn number_of(group: vec3<u32>, groups: vec3<u32>, lane: u32) -> u32 {
    return (group.x + group.y * groups.x) * 64u + lane;
}
