// Elementwise functions, written so that no intermediate result overflows and no two close numbers are subtracted.
// Drivers differ in the results of their own tanh and exp for large arguments.

fn hyperbolic_tangent(x: f32) -> f32 {
    let square = x * x;
    // Taylor's series for small arguments, for which the quotient below would cancel.
    let series = ((62.0 / 2835.0 * square - 17.0 / 315.0) * square + 2.0 / 15.0) * square - 1.0 / 3.0;
    let e = exp(-2.0 * min(abs(x), 20.0));
    return select(sign(x) * (1.0 - e) / (1.0 + e), x + x * square * series, square < 0.0625);
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-x, 80.0)));
}

fn relu(x: f32) -> f32 {
    return max(x, 0.0);
}

fn silu(x: f32) -> f32 {
    return x * sigmoid(x);
}

// exp(z * z) * erfc(z) as a polynomial in 1 / (1 + z / 2), fitted on Chebyshev nodes for z in 0..9.5: relative error
// 3e-7 in f32. With erfc, and not 1 + erf, the negative tail of gelu keeps its digits.
fn gelu(x: f32) -> f32 {
    let z = min(abs(x) * 0.70710678, 9.3);
    let u = 1.0 / (1.0 + 0.5 * z);
    var p = 0.018800286;
    p = p * u - 0.15732907;
    p = p * u + 0.50566363;
    p = p * u - 0.76741856;
    p = p * u + 0.49782140;
    p = p * u - 0.13682882;
    p = p * u + 0.23790691;
    p = p * u + 0.23620818;
    p = p * u + 0.28312391;
    p = p * u + 0.28205214;
    let tail = 0.5 * x * u * p * exp(-z * z);
    return select(tail, x - tail, x > 0.0);
}

// 0.5 * (1 + tanh(u)) is sigmoid(2 * u), which does not cancel.
fn gelu_tanh(x: f32) -> f32 {
    return x * sigmoid(1.5957691216 * (x + 0.044715 * x * x * x));
}
