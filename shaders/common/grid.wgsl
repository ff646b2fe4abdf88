// The number of an invocation, 64 to a workgroup, in the grid that `linear_grid` of src/kernel.rs lays out.
fn number_of(group: vec3<u32>, groups: vec3<u32>, lane: u32) -> u32 {
    return (group.x + group.y * groups.x) * 64u + lane;
}
