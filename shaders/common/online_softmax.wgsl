// A softmax over scores that come sixteen at a time, with a running maximum and sum, so that none is kept.
// Needs `functions`. A masked score adds exactly nothing, in whatever company it comes.
const LOWEST = -1e30;
const FOUR = vec4<u32>(0u, 1u, 2u, 3u);

// What makes a product a score. A soft cap of 0 is none.
struct Scoring {
    scale: f32,
    softcap: f32,
}

// One row so far: its maximum, its sum, by what to scale what was summed before, and the weights of the last sixteen.
struct Row {
    most: f32,
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

fn weights(scores: vec4<f32>, most: f32) -> vec4<f32> {
    return select(vec4<f32>(), exp(scores - most), scores > vec4<f32>(LOWEST));
}

// Takes in the scores of positions `j..j + 16`, of which those in `start..end` are seen.
fn advance(old: Row, rule: Scoring, products: mat4x4<f32>, j: u32, start: u32, end: u32) -> Row {
    let a = scores(rule, products[0], j + FOUR, start, end);
    let b = scores(rule, products[1], j + 4u + FOUR, start, end);
    let c = scores(rule, products[2], j + 8u + FOUR, start, end);
    let d = scores(rule, products[3], j + 12u + FOUR, start, end);
    let highest = max(max(a, b), max(c, d));
    let most = max(old.most, max(max(highest.x, highest.y), max(highest.z, highest.w)));
    let w = mat4x4<f32>(weights(a, most), weights(b, most), weights(c, most), weights(d, most));
    let sums = w[0] + w[1] + w[2] + w[3];
    // exp(0) is not 1 to the bit on every driver.
    let kept = select(exp(old.most - most), 1.0, old.most == most);
    return Row(most, old.total * kept + (sums.x + sums.y + sums.z + sums.w), kept, w);
}

// By what to scale what was summed in the end: what saw nothing is zero.
fn shared_out(row: Row) -> f32 {
    return select(0.0, 1.0 / row.total, row.total > 0.0);
}
