// state[batch, past + position, :] = update[batch, position, :], in place; both row-major.
// One element per invocation; nothing is reduced.
struct Params {
    n: u32,
    seq: u32,
    capacity: u32,
    width: u32,
}

struct Run {
    past: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> update: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<f32>;
@group(0) @binding(3) var<uniform> run: Run;

#import grid

@compute @workgroup_size(64)
fn append(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number_of(group, groups, lane);
    if (i >= params.n) {
        return;
    }
    let row = i / params.width;
    let position = run.past + row % params.seq;
    if (position < params.capacity) {
        state[(row / params.seq * params.capacity + position) * params.width + i % params.width] = update[i];
    }
}
