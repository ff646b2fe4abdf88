//! The self-test passes a device that computes correctly, and names what is wrong on one that does not.

mod common;

use common::{Fault, Faulty, adapters};
use fanfold::device::Device;
use fanfold::device::DeviceError;
use fanfold::device::gpu::GpuOptions;
use fanfold::device::host::HostDevice;
use fanfold::device::select::{DeviceChoice, open};
use fanfold::proof::{Check, Open, checks, selftest};
use std::cell::Cell;
use std::time::{Duration, Instant};

fn test(open: &Open<'_>) -> Vec<Check> {
    let mut found = Vec::new();
    let passed = selftest(open, Duration::ZERO, &mut |check| found.push(check));
    assert_eq!(passed, found.iter().all(|check| check.passed));
    assert_eq!(found.len(), checks(), "{found:?}");
    found
}

fn faulty(at: usize, fault: Fault) -> Vec<Check> {
    test(&|| Ok(Box::new(Faulty { host: HostDevice::new(), at, fault }) as Box<dyn Device>))
}

#[test]
fn the_host_passes_its_own_test() {
    for check in test(&|| Ok(Box::new(HostDevice::new()) as Box<dyn Device>)) {
        assert!(check.passed, "{check:?}");
    }
}

#[test]
fn every_adapter_passes() {
    for adapter in adapters() {
        let choice = DeviceChoice::Gpu(adapter);
        for check in test(&|| open(&choice, &GpuOptions::default())) {
            assert!(check.passed, "{check:?}");
        }
    }
}

#[test]
fn a_device_that_lies_is_found_out() {
    let found = faulty(0, Fault::Lies);
    for name in ["ops", "products", "exchange"] {
        let check = found.iter().find(|check| check.name == name).unwrap();
        assert!(!check.passed && check.detail.contains("error"), "{check:?}");
    }
    // The names of the ops that are wrong are reported.
    assert!(found[0].detail.contains("Softmax"), "{found:?}");
}

#[test]
fn a_broken_device_fails_each_check_and_ends_none_of_the_others() {
    let started = Instant::now();
    for (fault, word) in [(Fault::Lost, "unplugged"), (Fault::Panics, "")] {
        for check in faulty(0, fault) {
            assert!(!check.passed && check.detail.contains(word) && !check.detail.is_empty(), "{check:?}");
        }
    }
    // The time runs out during the last check; the checks before it have passed.
    let (opened, whole) = (Cell::new(0), Cell::new(usize::MAX));
    let gone = || {
        opened.set(0);
        test(&|| {
            opened.set(opened.get() + 1);
            match opened.get() < whole.get() {
                true => Ok(Box::new(HostDevice::new()) as Box<dyn Device>),
                false => Err(DeviceError::NoAdapter),
            }
        })
    };
    gone();
    whole.set(opened.get());
    let found = gone();
    let passed: Vec<bool> = found.iter().map(|check| check.passed).collect();
    assert_eq!(passed, [true, true, true, false], "{found:?}");
    assert!(found[3].detail.contains("no GPU adapter"), "{found:?}");
    for check in test(&|| panic!("a defect in a loader")) {
        assert!(!check.passed && check.detail.contains("a defect in a loader"), "{check:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}
