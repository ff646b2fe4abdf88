// y[row, :] = exp(x[row, :] - max) / sum(exp(x[row, :] - max)). One workgroup per row: every lane finds the maximum
// and the sum itself, which needs no barrier, and writes its part of the row.
// The order of reduction is ascending: it depends only on the number of elements.
struct Params {
    rows: u32,
    len: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8)
fn softmax(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    if (row >= params.rows) {
        return;
    }
    let start = row * params.len;
    let end = start + params.len;
    var largest = x[start];
    for (var i = start; i < end; i++) {
        largest = max(largest, x[i]);
    }
    var sum = 0.0;
    for (var i = start; i < end; i++) {
        sum += exp(x[i] - largest);
    }
    for (var i = start + lane; i < end; i += 8u) {
        y[i] = exp(x[i] - largest) / sum;
    }
}
