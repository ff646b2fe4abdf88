// y[row, :] = (x[row, :] - mean) / sqrt(variance + epsilon) * (offset + weight) (+ bias). One workgroup per row: every
// lane computes the statistics itself, which needs no barrier, and writes its part of the row.
// The order of reduction is four running sums, each over every fourth element. It depends only on the row's length.
struct Params {
    rows: u32,
    len: u32,
    epsilon: f32,
    offset: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;

fn mean_of(start: u32) -> f32 {
    let whole = start + params.len / 4u * 4u;
    var sums = vec4<f32>();
    for (var i = start; i < whole; i += 4u) {
        sums += vec4<f32>(x[i], x[i + 1u], x[i + 2u], x[i + 3u]);
    }
    for (var i = whole; i < start + params.len; i++) {
        sums.x += x[i];
    }
    return (sums.x + sums.y + sums.z + sums.w) / f32(params.len);
}

fn scale_of(start: u32, mean: f32) -> f32 {
    let whole = start + params.len / 4u * 4u;
    var sums = vec4<f32>();
    for (var i = start; i < whole; i += 4u) {
        let centred = vec4<f32>(x[i], x[i + 1u], x[i + 2u], x[i + 3u]) - mean;
        sums += centred * centred;
    }
    for (var i = whole; i < start + params.len; i++) {
        let centred = x[i] - mean;
        sums.x += centred * centred;
    }
    return 1.0 / sqrt((sums.x + sums.y + sums.z + sums.w) / f32(params.len) + params.epsilon);
}

@compute @workgroup_size(8)
fn rms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    if (row >= params.rows) {
        return;
    }
    let start = row * params.len;
    let scale = scale_of(start, 0.0);
    for (var c = lane; c < params.len; c += 8u) {
        y[start + c] = x[start + c] * scale * (params.offset + weight[c]);
    }
}

@compute @workgroup_size(8)
fn layer(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    if (row >= params.rows) {
        return;
    }
    let start = row * params.len;
    let mean = mean_of(start);
    let scale = scale_of(start, mean);
    for (var c = lane; c < params.len; c += 8u) {
        y[start + c] = (x[start + c] - mean) * scale * (params.offset + weight[c]) + bias[c];
    }
}

// ---- By lanes: the 256 lanes of a workgroup share the sums of one row. ----

var<workgroup> shared_sums: array<f32, 256>;

// The sum of `own` over all lanes, added in halves: lane 0 adds that of lane 128, then that of lane 64, and so on.
fn sum_of_lanes(own: f32, lane: u32) -> f32 {
    shared_sums[lane] = own;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            shared_sums[lane] += shared_sums[lane + half];
        }
    }
    workgroupBarrier();
    let sum = shared_sums[0];
    // No lane may begin the next sum before all lanes have read this one.
    workgroupBarrier();
    return sum;
}

// Elements of a row that a lane loads at a time: while it waits for one it waits for all.
const AHEAD = 8u;
const STEP = 256u * AHEAD;

// Every 256th element of the row from c on; past its end, the last.
fn some_of_x(start: u32, c: u32) -> array<f32, AHEAD> {
    var some = array<f32, AHEAD>();
    for (var i = 0u; i < AHEAD; i++) {
        some[i] = x[start + min(c + 256u * i, params.len - 1u)];
    }
    return some;
}

fn mean_by_lanes(start: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var c = lane; c < params.len; c += STEP) {
        let some = some_of_x(start, c);
        for (var i = 0u; i < AHEAD; i++) {
            sum += select(0.0, some[i], c + 256u * i < params.len);
        }
    }
    return sum_of_lanes(sum, lane) / f32(params.len);
}

fn scale_by_lanes(start: u32, mean: f32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var c = lane; c < params.len; c += STEP) {
        let some = some_of_x(start, c);
        for (var i = 0u; i < AHEAD; i++) {
            let centred = select(0.0, some[i] - mean, c + 256u * i < params.len);
            sum = fma(centred, centred, sum);
        }
    }
    return 1.0 / sqrt(sum_of_lanes(sum, lane) / f32(params.len) + params.epsilon);
}

fn some_of_weight(c: u32) -> array<f32, AHEAD> {
    var some = array<f32, AHEAD>();
    for (var i = 0u; i < AHEAD; i++) {
        some[i] = weight[min(c + 256u * i, params.len - 1u)];
    }
    return some;
}

fn store_rms(start: u32, scale: f32, lane: u32) {
    for (var c = lane; c < params.len; c += STEP) {
        let some = some_of_x(start, c);
        let weights = some_of_weight(c);
        for (var i = 0u; i < AHEAD; i++) {
            if (c + 256u * i < params.len) {
                y[start + c + 256u * i] = some[i] * scale * (params.offset + weights[i]);
            }
        }
    }
}

fn store_layer(start: u32, mean: f32, scale: f32, lane: u32) {
    for (var c = lane; c < params.len; c += STEP) {
        let some = some_of_x(start, c);
        let weights = some_of_weight(c);
        for (var i = 0u; i < AHEAD; i++) {
            let at = c + 256u * i;
            if (at < params.len) {
                y[start + at] = (some[i] - mean) * scale * (params.offset + weights[i]) + bias[at];
            }
        }
    }
}

@compute @workgroup_size(256)
fn rms_lanes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    if (row >= params.rows) {
        return;
    }
    let start = row * params.len;
    store_rms(start, scale_by_lanes(start, 0.0, lane), lane);
}

@compute @workgroup_size(256)
fn layer_lanes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    if (row >= params.rows) {
        return;
    }
    let start = row * params.len;
    let mean = mean_by_lanes(start, lane);
    store_layer(start, mean, scale_by_lanes(start, mean, lane), lane);
}
