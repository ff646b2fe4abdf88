// A softmax over scores that arrive sixteen at a time, with a running maximum and sum, so that no score is stored.
// Needs `functions`. A masked score has a weight of exactly 0, whichever scores arrive with it.
const LOWEST = -1e30;
const FOUR = vec4<u32>(0u, 1u, 2u, 3u);

// How a product becomes a score. A soft cap of 0 means no cap.
struct Scoring {
    scale: f32,
    softcap: f32,
}

// The state of one row: its maximum, its sum, the factor for sums made before the last block, and the weights of the
// last sixteen scores.
struct Row {
    largest: f32,
    total: f32,
    kept: f32,
    weights: mat4x4<f32>,
}

fn nothing_seen() -> Row {
    return Row(LOWEST, 0.0, 0.0, mat4x4<f32>());
}

fn capped(x: f32, softcap: f32) -> f32 {
    return softcap * hyperbolic_tangent(x / softcap);
}

fn scores(rule: Scoring, products: vec4<f32>, at: vec4<u32>, start: u32, end: u32) -> vec4<f32> {
    let x = products * rule.scale;
    var found = x;
    if (rule.softcap > 0.0) {
        let cap = rule.softcap;
        found = vec4<f32>(capped(x.x, cap), capped(x.y, cap), capped(x.z, cap), capped(x.w, cap));
    }
    return select(vec4<f32>(LOWEST), found, (at >= vec4<u32>(start)) & (at < vec4<u32>(end)));
}

fn weights(scores: vec4<f32>, largest: f32) -> vec4<f32> {
    return select(vec4<f32>(), exp(scores - largest), scores > vec4<f32>(LOWEST));
}

// Adds the scores of positions `j..j + 16`; those outside `start..end` are masked.
fn advance(old: Row, rule: Scoring, products: mat4x4<f32>, j: u32, start: u32, end: u32) -> Row {
    let a = scores(rule, products[0], j + FOUR, start, end);
    let b = scores(rule, products[1], j + 4u + FOUR, start, end);
    let c = scores(rule, products[2], j + 8u + FOUR, start, end);
    let d = scores(rule, products[3], j + 12u + FOUR, start, end);
    let highest = max(max(a, b), max(c, d));
    let largest = max(old.largest, max(max(highest.x, highest.y), max(highest.z, highest.w)));
    let w = mat4x4<f32>(weights(a, largest), weights(b, largest), weights(c, largest), weights(d, largest));
    let sums = w[0] + w[1] + w[2] + w[3];
    // exp(0) is not exactly 1 on every driver.
    let kept = select(exp(old.largest - largest), 1.0, old.largest == largest);
    return Row(largest, old.total * kept + (sums.x + sums.y + sums.z + sums.w), kept, w);
}

// Final normaliser: 1 / sum of weights, or 0 for a query that attended to no key.
fn shared_out(row: Row) -> f32 {
    return select(0.0, 1.0 / row.total, row.total > 0.0);
}
