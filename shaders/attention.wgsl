// y[row, head] = softmax(mask(cap(q k^T * scale))) v over the positions in the state, with a running maximum and sum,
// so that no score is kept. q is [batch, seq, heads * d], k [batch, capacity, kv_heads * d], v the same with e, y as q.
// Keys go in fours from positions that are multiples of four; a masked one adds exactly nothing. So the order of
// reduction depends on a query's position alone, not on who computes it or with which neighbours.
struct Params {
    seq: u32,
    capacity: u32,
    // This rank's heads, and where they start in the whole.
    heads: u32,
    head: u32,
    kv_heads: u32,
    kv_head: u32,
    // Query heads to a KV head, in the whole.
    group: u32,
    d: u32,
    e: u32,
    causal: u32,
    // 0: none.
    window: u32,
    scale: f32,
    // 0: none.
    softcap: f32,
}

struct Run {
    past: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Key>;
@group(0) @binding(2) var<storage, read> k: array<Key>;
@group(0) @binding(3) var<storage, read> v: array<Value>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> run: Run;

// Vectors to a key and to a value: their lengths in fours, rounded up.
override D4: u32;
override E4: u32;
// 1 where the length is no multiple of four: they are then bound as single elements.
override SCALAR_D: u32;
override SCALAR_E: u32;

#import functions

const LOWEST = -1e30;

fn query_at(row: u32, c: u32) -> vec4<f32> {
    if (SCALAR_D == 0u) {
        return vec4<f32>(q[row * D4 + c]);
    }
    var value = vec4<f32>();
    for (var i = 0u; i < min(params.d - 4u * c, 4u); i++) {
        value[i] = vec4<f32>(q[row * params.d + 4u * c + i]).x;
    }
    return value;
}

fn key_at(row: u32, c: u32) -> vec4<f32> {
    if (SCALAR_D == 0u) {
        return vec4<f32>(k[row * D4 + c]);
    }
    var value = vec4<f32>();
    for (var i = 0u; i < min(params.d - 4u * c, 4u); i++) {
        value[i] = vec4<f32>(k[row * params.d + 4u * c + i]).x;
    }
    return value;
}

fn value_at(row: u32, c: u32) -> vec4<f32> {
    if (SCALAR_E == 0u) {
        return vec4<f32>(v[row * E4 + c]);
    }
    var value = vec4<f32>();
    for (var i = 0u; i < min(params.e - 4u * c, 4u); i++) {
        value[i] = vec4<f32>(v[row * params.e + 4u * c + i]).x;
    }
    return value;
}

// One head of the query at `position`, over the keys from `first`, a multiple of four, to before `last`.
fn attend(batch: u32, position: u32, head: u32, first: u32, last: u32) {
    let row = (batch * params.seq + position) * params.heads + head;
    let kv = (params.head + head) / params.group - params.kv_head;
    let here = run.past + position;
    let end = select(run.past + params.seq, here + 1u, params.causal == 1u);
    let start = select(0u, max(here + 1u, params.window) - params.window, params.window > 0u);
    var query: Query;
    for (var c = 0u; c < D4; c++) {
        query[c] = query_at(row, c);
    }
    var sums: Sums;
    for (var c = 0u; c < E4; c++) {
        sums[c] = vec4<f32>();
    }
    var most = LOWEST;
    var total = 0.0;
    for (var j = first; j < last; j += 4u) {
        let at = j + vec4<u32>(0u, 1u, 2u, 3u);
        let rows = (batch * params.capacity + min(at, vec4<u32>(last - 1u))) * params.kv_heads + kv;
        var scores = vec4<f32>();
        for (var c = 0u; c < D4; c++) {
            scores += transpose(mat4x4<f32>(
                key_at(rows.x, c),
                key_at(rows.y, c),
                key_at(rows.z, c),
                key_at(rows.w, c),
            )) * query[c];
        }
        scores *= params.scale;
        if (params.softcap > 0.0) {
            scores.x = params.softcap * hyperbolic_tangent(scores.x / params.softcap);
            scores.y = params.softcap * hyperbolic_tangent(scores.y / params.softcap);
            scores.z = params.softcap * hyperbolic_tangent(scores.z / params.softcap);
            scores.w = params.softcap * hyperbolic_tangent(scores.w / params.softcap);
        }
        let seen = (at >= vec4<u32>(start)) & (at < vec4<u32>(end));
        scores = select(vec4<f32>(LOWEST), scores, seen);
        let higher = max(most, max(max(scores.x, scores.y), max(scores.z, scores.w)));
        let weights = select(vec4<f32>(), exp(scores - higher), seen);
        let kept = select(exp(most - higher), 1.0, most == higher);
        most = higher;
        total = total * kept + (weights.x + weights.y + weights.z + weights.w);
        for (var c = 0u; c < E4; c++) {
            sums[c] = sums[c] * kept + mat4x4<f32>(
                value_at(rows.x, c),
                value_at(rows.y, c),
                value_at(rows.z, c),
                value_at(rows.w, c),
            ) * weights;
        }
    }
    for (var c = 0u; c < E4; c++) {
        let value = sums[c] / total;
        for (var i = 0u; i < min(params.e - 4u * c, 4u); i++) {
            y[row * params.e + 4u * c + i] = value[i];
        }
    }
}

// For many positions: neighbouring lanes are neighbouring positions of one head, so they read the same keys.
@compute @workgroup_size(8)
fn prefill(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = 8u * group.x;
    let earliest = run.past + tile;
    let behind = run.past + params.seq;
    let last = select(behind, min(earliest + 8u, behind), params.causal == 1u);
    let first = select(0u, max(earliest + 1u, params.window) - params.window, params.window > 0u);
    if (tile + lane < params.seq) {
        attend(group.z, tile + lane, group.y, first / 4u * 4u, last);
    }
}

// For few positions: neighbouring lanes are neighbouring heads of one position.
@compute @workgroup_size(8)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = 8u * group.x + lane;
    let here = run.past + group.y;
    let last = select(run.past + params.seq, here + 1u, params.causal == 1u);
    let first = select(0u, max(here + 1u, params.window) - params.window, params.window > 0u);
    if (head < params.heads) {
        attend(group.z, group.y, head, first / 4u * 4u, last);
    }
}
