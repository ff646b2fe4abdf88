// An element of w, in a kernel that runs alone: where several run side by side, `sides` defines it.
fn w_at(i: u32) -> Packed {
    return w[i];
}
