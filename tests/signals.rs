//! The program, the system's signals and the terminal. Ctrl-C ends the program with 130, except that it only stops a
//! chat's answer. Time in which the process was suspended does not count against a deadline. A chat's lines can be
//! edited and are kept.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
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

/// Waits until the program handles Ctrl-C; before that, the system ends it.
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

/// The exit code, and the rest of stdout and stderr.
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
        // There is no answer to stop: the chat waits for a line.
        &["chat", "demo", "--template", "tests/fixtures/templates/chatml.jinja"],
    ] {
        let child = start(&[args, &long].concat());
        hears(&child);
        // While the program opens and loads the model.
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

/// A suspended process has not hung: `--timeout` counts only while it runs.
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

/// A chat in a terminal of its own, which util-linux's `script` makes.
struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
    /// How much of the output has been waited for.
    seen: usize,
}

impl Terminal {
    /// Starts a chat with the demo model that keeps its state in `state`, and waits for its prompt.
    fn chat(state: &Path, more: &str) -> Terminal {
        let program = assert_cmd::cargo::cargo_bin!("fanfold");
        let chat = "chat demo --template tests/fixtures/templates/chatml.jinja --devices host --ignore-eos";
        let mut script = Command::new("script");
        script.args(["-qefc", &format!("{} {chat} {more}", program.display()), "/dev/null"]);
        script.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_STATE_HOME", state).env("TERM", "xterm");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = script.spawn().expect("`script` of util-linux");
        let (mut stdout, shown) = (child.stdout.take().unwrap(), Arc::new(Mutex::new(String::new())));
        let all = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut bytes) {
                all.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        let mut terminal = Terminal { child, shown, seen: 0 };
        terminal.wait_for("> ");
        terminal
    }

    fn keys(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the terminal shows `text` after the output that was waited for before.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let started = Instant::now();
        loop {
            let shown = self.shown.lock().unwrap().clone();
            if let Some(at) = shown[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{text:?} is not in {:?}", &shown[self.seen..]);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The exit code, after the chat has ended.
    #[track_caller]
    fn code(mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            if started.elapsed() > Duration::from_secs(60) {
                self.child.kill().unwrap();
                panic!("the chat does not end: {}", self.shown.lock().unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_chats_lines_are_edited_completed_and_kept_in_private() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().unwrap();
    let mut chat = Terminal::chat(state.path(), "-n 3");
    // Tab completes a command, and the left arrow moves in a line.
    chat.keys("/sta\t\r");
    chat.wait_for("0 turns");
    chat.wait_for("> ");
    chat.keys("Helo\x1b[Dl\r");
    chat.wait_for("ended: length");
    chat.wait_for("> ");
    chat.keys(" not kept\r");
    chat.wait_for("ended: length");
    chat.wait_for("> ");
    chat.keys("\x04");
    assert_eq!(chat.code(), Some(0));
    let history = state.path().join("fanfold/chat_history");
    let kept = std::fs::read_to_string(&history).unwrap();
    assert!(kept.ends_with("/stats\nHello\n"), "{kept:?}");
    assert_eq!(std::fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    // The up arrow brings back the last line of the previous chat.
    let mut chat = Terminal::chat(state.path(), "-n 3");
    chat.keys("\x1b[A");
    chat.wait_for("Hello");
    chat.keys("\r");
    chat.wait_for("ended: length");
    chat.keys("/quit\r");
    assert_eq!(chat.code(), Some(0));
}

#[test]
fn ctrl_c_stops_an_answer_and_at_the_prompt_the_chat() {
    let state = tempfile::tempdir().unwrap();
    // A folder cannot be made below a file: a message says so once, and the chat continues.
    std::fs::write(state.path().join("fanfold"), "").unwrap();
    let mut chat = Terminal::chat(state.path(), "-c 512");
    assert!(chat.shown.lock().unwrap().contains("no history is kept"));
    chat.keys("Once upon a time\r");
    // The spinner that is shown until the first token is erased.
    chat.wait_for("reading");
    chat.wait_for("\x1b[2K");
    chat.keys("\x03");
    chat.wait_for("ended: interrupted");
    chat.wait_for("> ");
    assert!(chat.child.try_wait().unwrap().is_none(), "the chat goes on");
    chat.keys("\x03");
    assert_eq!(chat.code(), Some(130));
}

/// A signal from another process, while the terminal reads Ctrl-C as a key.
#[test]
fn an_interrupted_prompt_ends_the_chat_and_gives_the_terminal_back() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Terminal::chat(state.path(), "");
    let children = format!("/proc/{0}/task/{0}/children", chat.child.id());
    let inner = std::fs::read_to_string(children).unwrap();
    let inner = inner.split_whitespace().next().unwrap().to_string();
    // `script` runs a shell, which may have replaced itself by the program.
    let below = std::fs::read_to_string(format!("/proc/{inner}/task/{inner}/children")).unwrap();
    let program = below.split_whitespace().next().map_or(inner, String::from);
    assert!(Command::new("kill").args(["-INT", &program]).status().unwrap().success());
    // Bracketed paste is switched off when the terminal is restored.
    chat.wait_for("\x1b[?2004l");
    assert_eq!(chat.code(), Some(130));
}
