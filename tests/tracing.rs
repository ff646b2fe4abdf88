//! With the feature `tracing`, a subscriber sees a span for every load, call and exchange.

#![cfg(feature = "tracing")]

mod common;

use common::hosts;
use fanfold::plan::{Strategy, plan};
use fanfold::{Engine, EngineOptions, Model};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Records the names of all spans, and the sum of the fields `bytes`.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<&'static str>>>, Arc<AtomicU64>, Bytes);

#[derive(Clone, Default)]
struct Bytes(Arc<AtomicU64>);

impl Visit for Bytes {
    fn record_u64(&mut self, field: &Field, value: u64) {
        assert_eq!(field.name(), "bytes");
        self.0.fetch_add(value, Ordering::Relaxed);
    }
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Subscriber for Names {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fanfold")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.lock().unwrap().push(span.metadata().name());
        Id::from_u64(1 + self.1.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, record: &Record<'_>) {
        record.record(&mut self.2.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn spans_are_seen_by_a_subscriber() {
    let names = Names::default();
    tracing::subscriber::set_global_default(names.clone()).unwrap();
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0, 1.0]).unwrap();
    let options = EngineOptions::default().context(64);
    let mut engine = Engine::open(model, &plan, hosts(2), options, Arc::new(|_| ())).unwrap();
    engine.feed(&[50, 47, 45]).unwrap();
    let report = engine.report().unwrap();
    let exchanges = report.iter().map(|rank| rank.exchanges).sum::<u64>() as usize;
    let sent: u64 = report.iter().map(|rank| rank.sent_bytes).sum();
    assert_eq!(names.2.0.load(Ordering::Relaxed), sent, "each exchange says the bytes it sent");
    let names = names.0.lock().unwrap();
    let count = |name: &str| names.iter().filter(|known| **known == name).count();
    assert_eq!([count("load"), count("call"), count("exchange")], [2, 2, exchanges]);
    assert!(exchanges > 4);
}
