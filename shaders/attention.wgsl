// y[row, head] = softmax(mask(cap(q k^T * scale))) v over the positions in the state, with a running maximum and sum,
// so that no score is stored; y holds the running sums. q is [batch, seq, heads * d], k is [batch, capacity, kv_heads
// * d], v is the same with e.
// An invocation computes four queries that share a KV head. It reads keys in blocks of sixteen, each of which begins at
// a multiple of sixteen. A masked key has a weight of exactly 0, so the order of reduction depends only on a query's
// position, and not on the queries that it is computed with.
struct Params {
    batch: u32,
    seq: u32,
    capacity: u32,
    // The number of query heads on this rank, and the model's number of the first one; then the same for KV heads.
    heads: u32,
    head: u32,
    kv_heads: u32,
    kv_head: u32,
    // Query heads per KV head, and invocations per KV head.
    group: u32,
    blocks: u32,
    d: u32,
    e: u32,
    causal: u32,
    // Whether `ranges` holds the positions of each sequence. Without ranges another buffer is bound in its place.
    ranged: u32,
    // 0 means no window, or no cap.
    window: u32,
    softcap: f32,
    scale: f32,
}

struct Run {
    past: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Key>;
@group(0) @binding(2) var<storage, read> k: array<Key>;
@group(0) @binding(3) var<storage, read> v: array<Value>;
@group(0) @binding(4) var<storage, read> ranges: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> run: Run;

// 1 if d or e is not a multiple of four: keys or values are then bound as single elements.
override SCALAR_D: u32;
override SCALAR_E: u32;

#import functions
#import online_softmax

fn query(row: u32, c: u32) -> vec4<f32> {
    if (SCALAR_D == 0u) {
        return vec4<f32>(q[row * (params.d / 4u) + c]);
    }
    let i = row * params.d + min(4u * c + FOUR, vec4<u32>(params.d - 1u));
    return vec4<f32>(vec4<f32>(q[i.x]).x, vec4<f32>(q[i.y]).x, vec4<f32>(q[i.z]).x, vec4<f32>(q[i.w]).x);
}

fn key(row: u32, c: u32) -> vec4<f32> {
    if (SCALAR_D == 0u) {
        return vec4<f32>(k[row * (params.d / 4u) + c]);
    }
    let i = row * params.d + min(4u * c + FOUR, vec4<u32>(params.d - 1u));
    let found = vec4<f32>(vec4<f32>(k[i.x]).x, vec4<f32>(k[i.y]).x, vec4<f32>(k[i.z]).x, vec4<f32>(k[i.w]).x);
    return select(vec4<f32>(), found, 4u * c + FOUR < vec4<u32>(params.d));
}

fn value(row: u32, c: u32) -> vec4<f32> {
    if (SCALAR_E == 0u) {
        return vec4<f32>(v[row * (params.e / 4u) + c]);
    }
    let i = row * params.e + min(4u * c + FOUR, vec4<u32>(params.e - 1u));
    return vec4<f32>(vec4<f32>(v[i.x]).x, vec4<f32>(v[i.y]).x, vec4<f32>(v[i.z]).x, vec4<f32>(v[i.w]).x);
}

fn keys(rows: vec4<u32>, c: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(key(rows.x, c), key(rows.y, c), key(rows.z, c), key(rows.w, c)));
}

fn values(rows: vec4<u32>, c: u32) -> mat4x4<f32> {
    return mat4x4<f32>(value(rows.x, c), value(rows.y, c), value(rows.z, c), value(rows.w, c));
}

// Adds `sum` to y, whose old value is scaled by `kept`. If `kept` is 0 the old value is not used: it may be
// uninitialised and not a number.
fn accumulate(there: bool, row: u32, c: u32, kept: f32, sum: vec4<f32>) {
    let start = row * params.e + 4u * c;
    for (var i = 0u; there && i < min(params.e - 4u * c, 4u); i++) {
        y[start + i] = select(0.0, y[start + i] * kept, kept > 0.0) + sum[i];
    }
}

@compute @workgroup_size(8)
fn attend(@builtin(global_invocation_id) invocation: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let id = invocation.x + invocation.y * groups.x * 8u;
    let batch = id / params.blocks / params.kv_heads;
    let kv = id / params.blocks % params.kv_heads;
    // The heads of this rank that read this KV head. At the edges of the rank's part, other ranks have some of its
    // query heads.
    let first_head = max((params.kv_head + kv) * params.group, params.head) - params.head;
    let width = min((params.kv_head + kv + 1u) * params.group - params.head, params.heads) - first_head;
    let own = id % params.blocks * 4u + FOUR;
    let there = own < vec4<u32>(params.seq * width);
    if (batch >= params.batch || !there.x) { return; }
    let flat = min(own, vec4<u32>(params.seq * width - 1u));
    let rows = (batch * params.seq + flat / width) * params.heads + first_head + flat % width;
    let here = run.past + flat / width;
    let filled = vec4<u32>(min(run.past + params.seq, params.capacity));
    var held = vec2<u32>(0u, filled.x);
    if (params.ranged == 1u) {
        held = min(vec2<u32>(ranges[2u * batch], ranges[2u * batch + 1u]), filled.xy);
    }
    let ends = min(select(filled, here + 1u, vec4<bool>(params.causal == 1u)), held.yyyy);
    let windowed = max(here + 1u, vec4<u32>(params.window)) - params.window;
    let starts = max(select(vec4<u32>(), windowed, vec4<bool>(params.window > 0u)), held.xxxx);
    let latest = vec4<u32>(max(ends.w, 1u) - 1u);
    let state = batch * params.capacity * params.kv_heads + kv;
    let rule = Scoring(params.scale, params.softcap);
    var r0 = nothing_seen();
    var r1 = nothing_seen();
    var r2 = nothing_seen();
    var r3 = nothing_seen();
    let first = starts.x / 16u * 16u;
    for (var j = first; j < ends.w; j += 16u) {
        let k0 = state + min(j + FOUR, latest) * params.kv_heads;
        let k1 = state + min(j + 4u + FOUR, latest) * params.kv_heads;
        let k2 = state + min(j + 8u + FOUR, latest) * params.kv_heads;
        let k3 = state + min(j + 12u + FOUR, latest) * params.kv_heads;
        var s0 = mat4x4<f32>();
        var s1 = mat4x4<f32>();
        var s2 = mat4x4<f32>();
        var s3 = mat4x4<f32>();
        for (var c = 0u; c < (params.d + 3u) / 4u; c++) {
            let four = mat4x4<f32>(query(rows.x, c), query(rows.y, c), query(rows.z, c), query(rows.w, c));
            s0 += keys(k0, c) * four;
            s1 += keys(k1, c) * four;
            s2 += keys(k2, c) * four;
            s3 += keys(k3, c) * four;
        }
        r0 = advance(r0, rule, mat4x4<f32>(s0[0], s1[0], s2[0], s3[0]), j, starts.x, ends.x);
        r1 = advance(r1, rule, mat4x4<f32>(s0[1], s1[1], s2[1], s3[1]), j, starts.y, ends.y);
        r2 = advance(r2, rule, mat4x4<f32>(s0[2], s1[2], s2[2], s3[2]), j, starts.z, ends.z);
        r3 = advance(r3, rule, mat4x4<f32>(s0[3], s1[3], s2[3], s3[3]), j, starts.w, ends.w);
        let kept = select(vec4<f32>(r0.kept, r1.kept, r2.kept, r3.kept), vec4<f32>(), vec4<bool>(j == first));
        let w0 = mat4x4<f32>(r0.weights[0], r1.weights[0], r2.weights[0], r3.weights[0]);
        let w1 = mat4x4<f32>(r0.weights[1], r1.weights[1], r2.weights[1], r3.weights[1]);
        let w2 = mat4x4<f32>(r0.weights[2], r1.weights[2], r2.weights[2], r3.weights[2]);
        let w3 = mat4x4<f32>(r0.weights[3], r1.weights[3], r2.weights[3], r3.weights[3]);
        for (var c = 0u; c < (params.e + 3u) / 4u; c++) {
            let sum = values(k0, c) * w0 + values(k1, c) * w1 + values(k2, c) * w2 + values(k3, c) * w3;
            accumulate(there.x, rows.x, c, kept.x, sum[0]);
            accumulate(there.y, rows.y, c, kept.y, sum[1]);
            accumulate(there.z, rows.z, c, kept.z, sum[2]);
            accumulate(there.w, rows.w, c, kept.w, sum[3]);
        }
    }
    for (var c = 0u; c < (params.e + 3u) / 4u; c++) {
        accumulate(there.x, rows.x, c, shared_out(r0), vec4<f32>());
        accumulate(there.y, rows.y, c, shared_out(r1), vec4<f32>());
        accumulate(there.z, rows.z, c, shared_out(r2), vec4<f32>());
        accumulate(there.w, rows.w, c, shared_out(r3), vec4<f32>());
    }
}

// ---- By lanes: a workgroup computes one query of one head. Blocks of 256 keys begin at multiples of 256. ----

// Keys of a block, one per lane. Another number would change the order of sums, and with it the last bits.
const BLOCK = 256u;
// Lanes that are adjacent along a row of values. Each of the sixteen groups of such lanes handles 16 of a block's
// positions.
const ACROSS = 16u;
// Vectors of a value that a lane holds, for values of up to 4 * 16 * 4 = 256 elements.
const PER_LANE = 4u;

var<workgroup> block_scores: array<f32, 256>;
var<workgroup> block_maxima: array<f32, 16>;
var<workgroup> block_weights: array<f32, 256>;
var<workgroup> block_sums: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn attend_lanes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    if (row >= params.batch * params.seq * params.heads) {
        return;
    }
    let position = row / params.heads % params.seq;
    let batch = row / params.heads / params.seq;
    let kv = (params.head + row % params.heads) / params.group - params.kv_head;
    let here = run.past + position;
    let filled = min(run.past + params.seq, params.capacity);
    var held = vec2<u32>(0u, filled);
    if (params.ranged == 1u) {
        held = min(vec2<u32>(ranges[2u * batch], ranges[2u * batch + 1u]), vec2<u32>(filled));
    }
    let end = min(select(filled, here + 1u, params.causal == 1u), held.y);
    let windowed = max(here + 1u, params.window) - params.window;
    let start = max(select(0u, windowed, params.window > 0u), held.x);
    let latest = max(end, 1u) - 1u;
    let state = batch * params.capacity * params.kv_heads + kv;
    let part = lane / ACROSS;
    let columns = (params.e + 3u) / 4u;
    var largest = LOWEST;
    // The sum of the weights of this lane's keys; and for each of this lane's columns, the sum over its group's
    // positions.
    var total = 0.0;
    var sums = array<vec4<f32>, 4>();
    for (var first = start / BLOCK * BLOCK; first < end; first += BLOCK) {
        let j = first + lane;
        let key_row = state + min(j, latest) * params.kv_heads;
        var product = vec4<f32>();
        for (var c = 0u; c < (params.d + 3u) / 4u; c++) {
            product = fma(query(row, c), key(key_row, c), product);
        }
        var score = LOWEST;
        if (j >= start && j < end) {
            score = ((product.x + product.y) + (product.z + product.w)) * params.scale;
            if (params.softcap > 0.0) {
                score = capped(score, params.softcap);
            }
        }
        block_scores[lane] = score;
        workgroupBarrier();
        // The largest score of the block, found in two steps, with sixteen scores per lane. A maximum is the same in
        // any order.
        if (lane < 16u) {
            var sixteen = LOWEST;
            for (var i = 0u; i < 16u; i++) {
                sixteen = max(sixteen, block_scores[i * 16u + lane]);
            }
            block_maxima[lane] = sixteen;
        }
        workgroupBarrier();
        let before = largest;
        for (var i = 0u; i < 16u; i++) {
            largest = max(largest, block_maxima[i]);
        }
        // exp(0) is not exactly 1 on every driver.
        let kept = select(exp(before - largest), 1.0, before == largest);
        let weight = select(0.0, exp(score - largest), score > LOWEST);
        block_weights[lane] = weight;
        total = fma(total, kept, weight);
        workgroupBarrier();
        for (var p = 0u; p < PER_LANE; p++) {
            let c = lane % ACROSS + p * ACROSS;
            if (c < columns) {
                var sum = sums[p] * kept;
                for (var i = part * 16u; i < min(part * 16u + 16u, end - first); i++) {
                    let value_row = state + min(first + i, latest) * params.kv_heads;
                    sum = fma(vec4<f32>(block_weights[i]), value(value_row, c), sum);
                }
                sums[p] = sum;
            }
        }
    }
    workgroupBarrier();
    block_scores[lane] = total;
    workgroupBarrier();
    if (lane < 16u) {
        var some = 0.0;
        for (var i = 0u; i < 16u; i++) {
            some += block_scores[i * 16u + lane];
        }
        block_maxima[lane] = some;
    }
    workgroupBarrier();
    var all = 0.0;
    for (var i = 0u; i < 16u; i++) {
        all += block_maxima[i];
    }
    // The final normaliser; 0 for a query that attends to no key.
    let share = select(0.0, 1.0 / all, all > 0.0);
    for (var p = 0u; p < PER_LANE; p++) {
        block_sums[lane] = sums[p];
        workgroupBarrier();
        let c = lane % ACROSS + p * ACROSS;
        if (part == 0u && c < columns) {
            var sum = block_sums[lane];
            for (var i = 1u; i < 16u; i++) {
                sum += block_sums[lane + 16u * i];
            }
            for (var i = 0u; i < min(params.e - 4u * c, 4u); i++) {
                y[row * params.e + 4u * c + i] = sum[i] * share;
            }
        }
        workgroupBarrier();
    }
}
