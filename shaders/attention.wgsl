// y[row, head] = softmax(mask(cap(q k^T * scale))) v over the positions in the state, with a running maximum and sum,
// so that no score is stored. q is [batch, seq, heads * d], k is [batch, capacity, kv_heads * d], v is the same with e.
// An invocation, or a workgroup by lanes, computes four queries that share a KV head, and reads each key and value once for them.
//
// Few queries over a long state are computed in parts, by `span` positions each, so that many lanes have work (flash decoding,
// Dao et al. 2023): a part stores its sums, its maximum and its sum of weights, and `merge` adds up the parts in their order. The
// span follows from the kernel and the room of the state: neither the device nor the rank's share decides where a part ends.
struct Params {
    batch: u32,
    seq: u32,
    capacity: u32,
    // The number of query heads on this rank, and the model's number of the first one; then the same for KV heads.
    heads: u32,
    head: u32,
    kv_heads: u32,
    kv_head: u32,
    // Query heads per KV head, and groups of four queries per KV head.
    group: u32,
    blocks: u32,
    d: u32,
    e: u32,
    causal: u32,
    // Whether `words` holds the range of positions of each sequence. Without ranges another buffer is bound in its place.
    ranged: u32,
    // 0 means no window, or no cap.
    window: u32,
    softcap: f32,
    scale: f32,
    // Positions of a part, 0 if one part has all; and the number of parts that the state has room for.
    span: u32,
    parts: u32,
}

struct Run {
    past: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// The output; for parts their sums, and behind them each part's maximum and sum of weights for every row.
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
// The ranges of positions, if any; for `merge` the parts, as bits.
@group(0) @binding(2) var<storage, read> words: array<u32>;
@group(0) @binding(3) var<uniform> run: Run;
@group(0) @binding(4) var<storage, read> q: array<Key>;
@group(0) @binding(5) var<storage, read> k: array<Key>;
@group(0) @binding(6) var<storage, read> v: array<Value>;

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

// Four queries that share a KV head, and a part of the positions that they attend to.
struct Four {
    // Whether there are such queries, and which of the four there are. Those that are not repeat the last one.
    some: bool,
    there: vec4<bool>,
    rows: vec4<u32>,
    // The positions that each query attends to.
    starts: vec4<u32>,
    ends: vec4<u32>,
    // The part, and the positions that it has of those from the first one's start to the last one's end.
    part: u32,
    first: u32,
    end: u32,
    // The last position that may be read, and the row of the state that the KV head's first position is.
    latest: u32,
    state: u32,
}

fn all_rows() -> u32 {
    return params.batch * params.seq * params.heads;
}

fn four(id: u32) -> Four {
    let fours = params.batch * params.kv_heads * params.blocks;
    let part = id / fours;
    let batch = id % fours / params.blocks / params.kv_heads;
    let kv = id / params.blocks % params.kv_heads;
    // The heads of this rank that read this KV head. At the edges of the rank's part, other ranks have some of its
    // query heads.
    let first_head = max((params.kv_head + kv) * params.group, params.head) - params.head;
    let width = min((params.kv_head + kv + 1u) * params.group - params.head, params.heads) - first_head;
    let own = id % params.blocks * 4u + FOUR;
    let there = own < vec4<u32>(params.seq * width);
    let flat = min(own, vec4<u32>(params.seq * width - 1u));
    let rows = (batch * params.seq + flat / width) * params.heads + first_head + flat % width;
    let here = run.past + flat / width;
    let filled = vec4<u32>(min(run.past + params.seq, params.capacity));
    var held = vec2<u32>(0u, filled.x);
    if (params.ranged == 1u) {
        held = min(vec2<u32>(words[2u * batch], words[2u * batch + 1u]), filled.xy);
    }
    let ends = min(select(filled, here + 1u, vec4<bool>(params.causal == 1u)), held.yyyy);
    let windowed = max(here + 1u, vec4<u32>(params.window)) - params.window;
    let starts = max(select(vec4<u32>(), windowed, vec4<bool>(params.window > 0u)), held.xxxx);
    let part_end = select((part + 1u) * params.span, filled.x, params.span == 0u);
    let first = max(starts.x, part * params.span);
    let some = part < params.parts && there.x;
    let state = batch * params.capacity * params.kv_heads + kv;
    return Four(some, there, rows, starts, ends, part, first, min(ends.w, part_end), max(ends.w, 1u) - 1u, state);
}

// Stores what `merge` needs to know of a part of a row beside its sums.
fn store_part(there: bool, row: u32, part: u32, largest: f32, total: f32) {
    if (there) {
        let at = params.parts * all_rows() * params.e + 2u * (part * all_rows() + row);
        y[at] = largest;
        y[at + 1u] = total;
    }
}

// One invocation adds up the parts of one element, in their order.
@compute @workgroup_size(64)
fn merge(@builtin(global_invocation_id) invocation: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = invocation.x + invocation.y * groups.x * 64u;
    let rows = all_rows();
    if (i >= rows * params.e) {
        return;
    }
    let filled = min(run.past + params.seq, params.capacity);
    let parts = (filled + params.span - 1u) / params.span;
    let facts = params.parts * rows * params.e + 2u * (i / params.e);
    var largest = LOWEST;
    for (var p = 0u; p < parts; p++) {
        largest = max(largest, bitcast<f32>(words[facts + 2u * p * rows]));
    }
    var total = 0.0;
    var sum = 0.0;
    for (var p = 0u; p < parts; p++) {
        let at = facts + 2u * p * rows;
        let highest = bitcast<f32>(words[at]);
        let weight = bitcast<f32>(words[at + 1u]);
        // A part without weight stored no sums.
        if (weight > 0.0) {
            // exp(0) is not exactly 1 on every driver.
            let kept = select(exp(highest - largest), 1.0, highest == largest);
            total = fma(weight, kept, total);
            sum = fma(bitcast<f32>(words[p * rows * params.e + i]), kept, sum);
        }
    }
    y[i] = select(0.0, sum * (1.0 / total), total > 0.0);
}

// ---- Sequential: an invocation computes four queries. It reads keys in blocks of sixteen, each of which begins at a multiple of
// sixteen. A masked key has a weight of exactly 0, so the order of reduction depends only on a query's position, and not on the
// queries that it is computed with. y holds the running sums. ----

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
    let these = four(invocation.x + invocation.y * groups.x * 8u);
    if (!these.some) {
        return;
    }
    let there = these.there;
    let starts = these.starts;
    let ends = these.ends;
    let latest = vec4<u32>(these.latest);
    let state = these.state;
    // Where the queries are read, and where their sums are kept.
    let rows = these.rows;
    let sums = rows + these.part * all_rows();
    let rule = Scoring(params.scale, params.softcap);
    var r0 = nothing_seen();
    var r1 = nothing_seen();
    var r2 = nothing_seen();
    var r3 = nothing_seen();
    // A part begins at a multiple of sixteen too.
    let first = these.first / 16u * 16u;
    for (var j = first; j < these.end; j += 16u) {
        let k0 = state + min(j + FOUR, latest) * params.kv_heads;
        let k1 = state + min(j + 4u + FOUR, latest) * params.kv_heads;
        let k2 = state + min(j + 8u + FOUR, latest) * params.kv_heads;
        let k3 = state + min(j + 12u + FOUR, latest) * params.kv_heads;
        var s0 = mat4x4<f32>();
        var s1 = mat4x4<f32>();
        var s2 = mat4x4<f32>();
        var s3 = mat4x4<f32>();
        for (var c = 0u; c < (params.d + 3u) / 4u; c++) {
            let queries = mat4x4<f32>(query(rows.x, c), query(rows.y, c), query(rows.z, c), query(rows.w, c));
            s0 += keys(k0, c) * queries;
            s1 += keys(k1, c) * queries;
            s2 += keys(k2, c) * queries;
            s3 += keys(k3, c) * queries;
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
            accumulate(there.x, sums.x, c, kept.x, sum[0]);
            accumulate(there.y, sums.y, c, kept.y, sum[1]);
            accumulate(there.z, sums.z, c, kept.z, sum[2]);
            accumulate(there.w, sums.w, c, kept.w, sum[3]);
        }
    }
    if (params.span > 0u) {
        store_part(there.x, rows.x, these.part, r0.largest, r0.total);
        store_part(there.y, rows.y, these.part, r1.largest, r1.total);
        store_part(there.z, rows.z, these.part, r2.largest, r2.total);
        store_part(there.w, rows.w, these.part, r3.largest, r3.total);
        return;
    }
    for (var c = 0u; c < (params.e + 3u) / 4u; c++) {
        accumulate(there.x, sums.x, c, shared_out(r0), vec4<f32>());
        accumulate(there.y, sums.y, c, shared_out(r1), vec4<f32>());
        accumulate(there.z, sums.z, c, shared_out(r2), vec4<f32>());
        accumulate(there.w, sums.w, c, shared_out(r3), vec4<f32>());
    }
}

// ---- By lanes: a workgroup computes four queries. Blocks of 256 keys begin at multiples of 256. ----

// Keys of a block. Another number would change the order of sums, and with it the last bits.
const BLOCK = 256u;
// Lanes that share a key: they are adjacent along its row, and so are 32 keys at a time.
const PER_KEY = 8u;
const KEYS = 32u;
// Lanes that are adjacent along a row of values. Each of the sixteen groups of such lanes handles 16 of a block's
// positions.
const ACROSS = 16u;
// Vectors of a value that a lane holds, for values of up to 4 * 16 * 4 = 256 elements.
const PER_LANE = 4u;

// One component per query, but in `block_sums` for values.
var<workgroup> block_weights: array<vec4<f32>, 256>;
var<workgroup> block_sums: array<vec4<f32>, 256>;
var<workgroup> block_few: array<vec4<f32>, 16>;

fn across(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

// Keys that a lane loads at a time, and values: while it waits for one it waits for all.
const KEYS_AHEAD = 4u;
const VALUES_AHEAD = 8u;

// Makes `block_weights` hold the products of the block's keys with the queries.
fn products(these: Four, first: u32, lane: u32) {
    for (var base = first; base < min(first + BLOCK, these.end); base += KEYS_AHEAD * KEYS) {
        // For each key a sum of four terms per query.
        var sums = array<mat4x4<f32>, KEYS_AHEAD>();
        for (var c = lane % PER_KEY; c < (params.d + 3u) / 4u; c += PER_KEY) {
            var some = array<vec4<f32>, KEYS_AHEAD>();
            for (var i = 0u; i < KEYS_AHEAD; i++) {
                some[i] = key(these.state + min(base + i * KEYS + lane / PER_KEY, these.latest) * params.kv_heads, c);
            }
            let q0 = query(these.rows.x, c);
            let q1 = query(these.rows.y, c);
            let q2 = query(these.rows.z, c);
            let q3 = query(these.rows.w, c);
            for (var i = 0u; i < KEYS_AHEAD; i++) {
                let old = sums[i];
                sums[i] = mat4x4<f32>(
                    fma(q0, some[i], old[0]), fma(q1, some[i], old[1]), fma(q2, some[i], old[2]), fma(q3, some[i], old[3]),
                );
            }
        }
        for (var i = 0u; i < KEYS_AHEAD; i++) {
            let own = sums[i];
            block_sums[lane] = vec4<f32>(across(own[0]), across(own[1]), across(own[2]), across(own[3]));
            workgroupBarrier();
            if (lane < KEYS) {
                var sum = block_sums[lane * PER_KEY];
                for (var other = 1u; other < PER_KEY; other++) {
                    sum += block_sums[lane * PER_KEY + other];
                }
                block_weights[base - first + i * KEYS + lane] = sum;
            }
            workgroupBarrier();
        }
    }
}

@compute @workgroup_size(256)
fn attend_lanes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let these = four(group.x + group.y * groups.x);
    if (!these.some) {
        return;
    }
    let few = lane / ACROSS;
    let columns = (params.e + 3u) / 4u;
    let cap = params.softcap;
    var largest = vec4<f32>(LOWEST);
    // The sum of the weights of this lane's keys, per query; and for each of this lane's columns, the sums over its group's
    // positions, a column per query.
    var total = vec4<f32>();
    var sums = array<mat4x4<f32>, PER_LANE>();
    for (var first = these.first / BLOCK * BLOCK; first < these.end; first += BLOCK) {
        products(these, first, lane);
        let j = vec4<u32>(first + lane);
        var score = block_weights[lane] * params.scale;
        if (cap > 0.0) {
            score = vec4<f32>(capped(score.x, cap), capped(score.y, cap), capped(score.z, cap), capped(score.w, cap));
        }
        score = select(vec4<f32>(LOWEST), score, (j >= these.starts) & (j < these.ends));
        block_sums[lane] = score;
        workgroupBarrier();
        // The largest score of the block, found in two steps, with sixteen scores per lane. A maximum is the same in
        // any order.
        if (lane < 16u) {
            var sixteen = vec4<f32>(LOWEST);
            for (var i = 0u; i < 16u; i++) {
                sixteen = max(sixteen, block_sums[i * 16u + lane]);
            }
            block_few[lane] = sixteen;
        }
        workgroupBarrier();
        let before = largest;
        for (var i = 0u; i < 16u; i++) {
            largest = max(largest, block_few[i]);
        }
        // exp(0) is not exactly 1 on every driver.
        let kept = select(exp(before - largest), vec4<f32>(1.0), before == largest);
        let weight = select(vec4<f32>(), exp(score - largest), score > vec4<f32>(LOWEST));
        block_weights[lane] = weight;
        total = fma(total, kept, weight);
        workgroupBarrier();
        for (var p = 0u; p * ACROSS < columns; p++) {
            let c = lane % ACROSS + p * ACROSS;
            if (c < columns) {
                let old = sums[p];
                var sum = mat4x4<f32>(old[0] * kept.x, old[1] * kept.y, old[2] * kept.z, old[3] * kept.w);
                let stop = min(few * 16u + 16u, these.end - first);
                for (var base = few * 16u; base < stop; base += VALUES_AHEAD) {
                    var some = array<vec4<f32>, VALUES_AHEAD>();
                    for (var i = 0u; i < VALUES_AHEAD; i++) {
                        some[i] = value(these.state + min(first + base + i, these.latest) * params.kv_heads, c);
                    }
                    for (var i = 0u; i < VALUES_AHEAD; i++) {
                        if (base + i < stop) {
                            let w = block_weights[base + i];
                            sum[0] = fma(vec4<f32>(w.x), some[i], sum[0]);
                            sum[1] = fma(vec4<f32>(w.y), some[i], sum[1]);
                            sum[2] = fma(vec4<f32>(w.z), some[i], sum[2]);
                            sum[3] = fma(vec4<f32>(w.w), some[i], sum[3]);
                        }
                    }
                }
                sums[p] = sum;
            }
        }
    }
    workgroupBarrier();
    block_sums[lane] = total;
    workgroupBarrier();
    if (lane < 16u) {
        var some = vec4<f32>();
        for (var i = 0u; i < 16u; i++) {
            some += block_sums[i * 16u + lane];
        }
        block_few[lane] = some;
    }
    workgroupBarrier();
    var all = vec4<f32>();
    for (var i = 0u; i < 16u; i++) {
        all += block_few[i];
    }
    // The final normaliser, which `merge` applies to parts; 0 for a query that attends to no key.
    let whole = params.span == 0u;
    let share = select(vec4<f32>(1.0), select(vec4<f32>(), 1.0 / all, all > vec4<f32>()), vec4<bool>(whole));
    for (var p = 0u; p * ACROSS < columns; p++) {
        let c = lane % ACROSS + p * ACROSS;
        for (var n = 0u; n < 4u; n++) {
            block_sums[lane] = sums[p][n];
            workgroupBarrier();
            if (few == 0u && c < columns && these.there[n]) {
                var sum = block_sums[lane];
                for (var i = 1u; i < 16u; i++) {
                    sum += block_sums[lane + 16u * i];
                }
                let start = (these.rows[n] + these.part * all_rows()) * params.e + 4u * c;
                for (var i = 0u; i < min(params.e - 4u * c, 4u); i++) {
                    y[start + i] = sum[i] * share[n];
                }
            }
            workgroupBarrier();
        }
    }
    if (!whole && lane < 4u) {
        store_part(these.there[lane], these.rows[lane], these.part, largest[lane], all[lane]);
    }
}
