//! The examples run, and what each asserts holds.

#[path = "../examples/own_op.rs"]
mod own_op;
#[path = "../examples/split_layer.rs"]
mod split_layer;

#[test]
fn an_op_of_ones_own_is_split_and_proved() {
    own_op::main().unwrap();
}

#[test]
fn a_layer_is_split_both_ways() {
    split_layer::main().unwrap();
}
