// Of a weight without scales.
// No block has a scale: `unscaled_of_row` gives the elements themselves.
const SCALED = false;

fn unscaled_of_row(row: u32, j: u32, len: u32) -> mat2x4<f32> {
    return eight_of_row(row, j, len);
}

fn scale_of_row(row: u32, block: u32, len: u32) -> f32 {
    return 1.0;
}
