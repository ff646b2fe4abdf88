//! Runs the examples, whose own assertions must hold.

#[cfg(feature = "text")]
#[path = "../examples/async_server.rs"]
mod async_server;
#[path = "../examples/own_graph.rs"]
mod own_graph;
#[path = "../examples/own_op.rs"]
mod own_op;
#[path = "../examples/own_transport.rs"]
mod own_transport;
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

#[test]
fn two_ranks_talk_over_a_transport_of_ones_own() {
    own_transport::main().unwrap();
}

#[test]
fn a_graph_of_ones_own_generates_and_is_proved() {
    own_graph::main().unwrap();
}

#[cfg(feature = "text")]
#[test]
fn clients_of_an_async_server_are_sent_their_texts() {
    async_server::main().unwrap();
}
