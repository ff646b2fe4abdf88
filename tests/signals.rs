//! The program and the system's signals: Ctrl-C ends it with 130 whatever it does, and a time in which it was stopped is no
//! reason to give up.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const HELD_OUT: &str = "tests/fixtures/tinyshakespeare/heldout.txt";

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("fanfold"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until the program hears Ctrl-C: before that, the system ends it.
fn hears(child: &Child) {
    let started = Instant::now();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(caught.trim(), 16).unwrap() & 2 != 0 {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "the program hears nothing");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How it ends, and what is left of stdout and on stderr.
fn end(mut child: Child) -> (ExitStatus, String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap(), out, err)
}

#[track_caller]
fn is_130(child: Child) -> String {
    let started = Instant::now();
    let (status, out, err) = end(child);
    assert_eq!(status.code(), Some(130), "{out}\n{err}");
    assert!(!err.contains("panicked") && started.elapsed() < Duration::from_secs(20), "{err}");
    out
}

#[test]
fn whatever_is_under_way_ctrl_c_ends_with_130() {
    let long = ["-c", "64", "--devices", "hostx2"];
    let text = "word ".repeat(400);
    for args in [
        &["perplexity", "demo", "-f", HELD_OUT][..],
        &["verify", "demo", "-p", &text[..200]],
        &["embed", "demo", "-f", HELD_OUT, "--truncate"],
        &["run", "demo", "-p", "Once", "-n", "50000", "--ignore-eos"],
        // No answer is under way: it waits for a line.
        &["chat", "demo", "--template", "tests/fixtures/templates/chatml.jinja"],
    ] {
        let child = start(&[args, &long].concat());
        hears(&child);
        // While it opens and loads.
        signal(&child, "-INT");
        is_130(child);
    }
}

#[test]
fn a_text_that_is_stopped_is_printed_as_far_as_it_came() {
    let mut child =
        start(&["run", "demo", "-p", "Once", "-n", "500", "--ignore-eos", "-c", "1024", "--devices", "host"]);
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    signal(&child, "-INT");
    assert!(is_130(child).ends_with('\n'));
}

/// A stop of the process is no hang: `--timeout` counts only while it runs.
#[test]
fn a_process_that_was_stopped_goes_on() {
    let run = ["run", "demo", "-p", "Once", "-n", "60", "--ignore-eos", "--temp", "0", "--timeout", "1"];
    for devices in [["--devices", "hostx2"], ["--devices", "hostx3"]] {
        let mut child = start(&[run.as_slice(), &devices].concat());
        let mut first = [0; 1];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        signal(&child, "-STOP");
        std::thread::sleep(Duration::from_millis(1600));
        assert!(child.try_wait().unwrap().is_none(), "it had ended before it was stopped");
        signal(&child, "-CONT");
        let (status, out, err) = end(child);
        assert!(status.success() && out.len() > 60, "{out}\n{err}");
    }
}
