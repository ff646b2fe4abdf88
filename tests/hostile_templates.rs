//! Malicious chat templates: each ends soon, with a text or a typed error, and in little memory.
//!
//! All memory of this process is counted, so the tests run one after another. `templates.rs` tests what templates
//! mean.

use fanfold::text::TextError;
use fanfold::text::{ChatTemplate, Message};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

struct Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's guarantees are those that the system allocator requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The most memory that a template may use, in bytes.
const MEMORY: usize = 300 << 20;
/// The longest time that a template may run. In a development build the limit on steps is reached in about a second.
const TIME: Duration = Duration::from_secs(20);

/// The result of a template: its text, or the message of its error.
#[track_caller]
fn outcome(source: &str) -> Result<String, String> {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let started = Instant::now();
    let messages = [Message::new("user", "Hello"), Message::new("assistant", "Hi")];
    let rendered = ChatTemplate::new("some/chat_template.jinja", source, Vec::new(), SystemTime::UNIX_EPOCH)
        .and_then(|template| template.render(&messages, true));
    let taken = PEAK.load(Ordering::Relaxed) - before;
    assert!(started.elapsed() < TIME, "{:?}: {source:.300}", started.elapsed());
    assert!(taken < MEMORY, "{} MB: {source:.300}", taken >> 20);
    match rendered {
        Ok(text) => {
            assert!(text.len() < 2 << 20, "{} bytes: {source:.300}", text.len());
            Ok(text)
        }
        Err(TextError::Template { reason, .. }) => {
            assert!(!reason.contains("engine failed"), "{reason}: {source:.300}");
            assert!(reason.len() < 4000, "{reason}");
            Err(reason)
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// Checks that the template fails with one of `words` as its reason.
#[track_caller]
fn refused(source: &str, words: &[&str]) {
    let reason = outcome(source).expect_err(source);
    assert!(words.iter().any(|word| reason.contains(word)), "none of {words:?} is in {reason:?}: {source:.300}");
}

/// The variable `x` as a list that contains the previous list twice, 60 times over: a walk would visit 2^60 values.
const SHARED: &str = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{% set x = ns.x %}";
const SHARED_DICTS: &str = "{% set ns = namespace(x={}) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{% set x = ns.x %}";
const SHARED_TUPLES: &str = "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{% set x = ns.x %}";

#[test]
fn shared_values_are_walked_within_the_limits() {
    for shared in [SHARED, SHARED_DICTS] {
        let other = shared.replace("ns", "ms").replace("set x", "set y");
        for operation in [
            "x",
            "x ~ ''",
            "x | string",
            "'%s' % (x,)",
            "'%r' % (x,)",
            "'{}'.format(x)",
            "'{!r:>5}'.format(x)",
            "x | tojson",
            "x | tojson(indent=2)",
            "{'a': x} | tojson(sort_keys=true)",
            "x == y",
            "x != y",
            "x in [y]",
            "[x, y] | sort | length",
            "[x, y] | max",
            "[y].index(x)",
            "[y].count(x)",
            "[x, x] | join",
            "x | upper",
            "x | e",
            "[x] | map('string') | list",
            "[[x], [y]] | groupby(0) | length",
            "ns",
            "x | replace('1', '2')",
            "x | wordcount",
            "x | urlencode",
            "x is lower",
        ] {
            let result = outcome(&format!("{shared}{other}{{{{ {operation} }}}}"));
            if let Err(reason) = result {
                let known = ["without end", "not supported", "urlencode"].iter().any(|word| reason.contains(word));
                assert!(known, "{operation}: {reason}");
            }
        }
        // Expressions that do not walk the list cost nothing.
        assert_eq!(outcome(&format!("{shared}{{{{ x | length }}}}")).unwrap(), "2");
        assert_eq!(outcome(&format!("{shared}{{{{ x == x }}}}")).unwrap_or("True".into()), "True");
    }
    refused(&format!("{SHARED_TUPLES}{{{{ {{x: 1}} }}}}"), &["without end"]);
    refused(&format!("{SHARED_TUPLES}{{{{ [x] | unique | list }}}}"), &["without end"]);
    refused(&format!("{SHARED_TUPLES}{{{{ {{}}[x] }}}}"), &["without end"]);
    refused(
        &format!(
            "{SHARED}{{% macro w(v) %}}{{% if v is sequence %}}{{% for i in v %}}{{{{ w(i) }}}}{{% endfor %}}{{% endif %}}{{% endmacro %}}{{{{ w(x) }}}}"
        ),
        &["without end"],
    );
    refused(
        &format!("{SHARED}{{% for i in x recursive %}}{{{{ loop(i) }}}}{{% endfor %}}"),
        &["without end", "iterable"],
    );
}

#[test]
fn a_namespace_never_holds_itself() {
    for value in
        ["ns", "[ns]", "{'a': ns}", "(1, (ns,))", "[{'a': [ns]}]", "cycler(ns)", "[ns] | list", "{1: ns}.values()"]
    {
        let source = format!("{{% set ns = namespace() %}}{{% set ns.x = {value} %}}{{{{ ns }}}}{{{{ ns | tojson }}}}");
        refused(&source, &["a namespace inside a namespace"]);
    }
    refused("{{ namespace(x=namespace()) }}", &["a namespace inside a namespace"]);
    // Other values that could form a cycle are dropped or refused.
    for value in ["loop", "m", "[m]", "[ns] | map('first')", "[ns] | reverse", "joiner(ns)", "ns.items", "loop.changed"]
    {
        let _ = outcome(&format!(
            "{{% set ns = namespace() %}}{{% macro m() %}}{{{{ ns }}}}{{{{ ns.x() }}}}{{% endmacro %}}{{% for i in [ns, 1] %}}{{% set ns.x = {value} %}}{{{{ ns.x }}}}{{{{ ns.x() }}}}{{% endfor %}}{{{{ ns.x() }}}}"
        ));
    }
}

#[test]
fn sizes_are_counted_before_they_are_made() {
    for expression in [
        "'{:>9999999999}'.format(1)",
        "'{:>99999999999999999999999999}'.format(1)",
        "'{:.999999999f}'.format(1.0)",
        "'{:{}}'.format(1, 10**12)",
        "'%9999999999d' % 1",
        "'%.9999999999d' % 1",
        "'%*d' % (10**12, 1)",
        "'%.9999999999f' % 1",
        "'%999999999s' % 'a'",
        "'%.*f' % (10**9, 1.0)",
        "'a' * 10**12",
        "10**12 * 'abc'",
        "[1] * 10**12",
        "(1, 2) * 10**15",
        "range(10**12)",
        "range(10**30)",
        "'a' | center(10**9)",
        "'a'.center(10**9)",
        "'a'.ljust(10**12, 'é')",
        "'a'.rjust(10**12)",
        "'a'.zfill(10**12)",
        "'a' | indent(10**12, true)",
        "'a\\nb' | indent('x' * 10**6 * 10)",
        "('a\\n' * 100000) | indent(10**4)",
        "('a' * 10**6).replace('a', 'b' * 10**6)",
        "('a' * 10**5) | replace('', 'b' * 10**5)",
        "('a' * 10**5).join('b' * 10**5)",
        "(['a' * 10**6] * 1000) | join",
        "[1, 2] | batch(10**9, 0) | list",
        "[1, 2] | slice(10**9) | list",
        "[] | slice(10**9, 1) | list",
        "2 ** (10**9)",
        "(-2) ** (10**12)",
        "10 ** (10 ** 10)",
        "1e308 ** 2",
        "(1.5 | round(10**12) | round(400) | string) * 10**9",
        "[1] | tojson(indent=10**9)",
        "[[[[1]]]] | tojson(indent='x' * 10**6)",
        "[1, 2, 3] | tojson(separators=('x' * 10**6, ''))",
        "'\\t'.expandtabs(10**12)",
        "'a' ~ 'b' * 10**9",
        "('x' * 10**6) ~ ('x' * 10**6)",
        "('x' * 10**6) + ('x' * 10**6)",
        "'x' * 10**6 * 10**6",
        "('é' * 10**6) | urlencode",
        "('&' * 10**6) | e",
        "('ǰ' * 10**6).upper()",
        "['x' * 10**6] | map('center', 10**9) | list",
        "'{0}{0}{0}'.format('x' * 10**6)",
        "'%s%s%s' % (('x' * 10**6,) * 3)",
        "(dict(a='x' * 10**6) | tojson) ~ 'y' * 10**6",
        "range(100000) | batch(1) | list | string",
        "(range(100000) | list) * 1000",
        "strftime_now('%999999999Y')",
        "strftime_now('%Y' * 10**5)",
        "('x' * 10**6 | truncate(10**30)) * 2",
    ] {
        if let Ok(text) = outcome(&format!("{{{{ {expression} }}}}")) {
            panic!("{expression} gives {} bytes: {text:.100}", text.len());
        }
    }
    // Large, but within the limits.
    assert_eq!(outcome("{{ ('a' * 10**6) | length }}").unwrap(), "1000000");
    assert_eq!(outcome("{{ ([0] * 100000) | length }}").unwrap(), "100000");
}

#[test]
fn growth_in_a_loop_is_ended() {
    for (start, step) in [
        ("'x'", "ns.x ~ ns.x"),
        ("'x'", "ns.x + ns.x"),
        ("'x'", "ns.x * 2"),
        ("'x'", "ns.x | replace('x', 'xx')"),
        ("'x'", "[ns.x, ns.x] | join"),
        ("'x'", "'%s%s' % (ns.x, ns.x)"),
        ("'x'", "'{0}{0}'.format(ns.x)"),
        ("'xx'", "ns.x.join(ns.x)"),
        ("[1]", "ns.x + ns.x"),
        ("[1]", "ns.x * 2"),
        ("(1,)", "ns.x + ns.x"),
        ("[1]", "[ns.x, ns.x] | sum(start=[])"),
        ("2", "ns.x * ns.x"),
        ("2", "ns.x ** 2"),
        ("['a']", "ns.x | map('string') | list | string | list"),
        ("'x'", "ns.x | tojson | tojson"),
        ("'x'", "[ns.x] | string"),
        ("'x'", "{ns.x: ns.x} | string"),
        ("{}", "{'a': ns.x}"),
        ("[1]", "[ns.x]"),
        ("(1,)", "(ns.x, 1)"),
        ("[1]", "[ns.x] | list"),
        ("[1]", "cycler(ns.x)"),
        ("[1]", "[ns.x] | map('list') | list"),
        ("[1]", "dict(a=ns.x)"),
        ("[1]", "[ns.x] | batch(2) | list"),
        ("[1]", "[ns.x] | groupby(0)"),
        ("[1]", "{1: ns.x}.items() | list"),
        ("[1]", "[ns.x].copy"),
        ("[1]", "joiner(ns.x)"),
    ] {
        let source = "{% set ns = namespace(x=START) %}{% for i in range(99999) %}{% set ns.x = STEP %}{% endfor %}";
        let reason = outcome(&source.replace("START", start).replace("STEP", step)).expect_err(step);
        assert!(!reason.contains("syntax"), "{step}: {reason}");
    }
    refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", &["runs without end"]);
    refused("{% for a in range(99999) %}{{ 'x' * 100 }}{% endfor %}", &["prints without end"]);
    refused(
        "{% set ns = namespace(l=[]) %}{% for a in range(99999) %}{% set ns.l = ns.l + ['x' * 10000] %}{% endfor %}",
        &["without end"],
    );
    // A list that grows by one item at a time: quadratic work.
    refused(
        "{% set ns = namespace(l=[]) %}{% for a in range(99999) %}{% set ns.l = ns.l + [1] %}{% endfor %}",
        &["without end"],
    );
    // Strings held by nested block assignments.
    let deep = format!("{}{}", "{% set x %}{{ 'x' * 1000000 }}".repeat(100), "{% endset %}".repeat(100));
    let _ = outcome(&deep);
}

#[test]
fn recursion_and_depth_are_ended() {
    for source in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% macro m() %}{% call m() %}{% endcall %}{{ caller() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{% call m() %}{{ m() }}{% endcall %}{% endcall %}{{ m() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for x in 'a' recursive %}{{ loop(x) }}{% endfor %}",
        "{% macro m() %}{% for i in [1] %}{% if 1 %}{% with %}{% set x %}{{ m() }}{% endset %}{% endwith %}{% endif %}{% endfor %}{% endmacro %}{{ m() }}",
        "{% set ns = namespace() %}{% macro m() %}{{ ns.f() }}{% endmacro %}{% set ns.f = m %}{{ m() }}",
        "{% macro m(x=m()) %}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ (((((m()))))) ~ -(-(-1)) }}{% endmacro %}{{ m() | upper | lower }}",
    ] {
        let reason = outcome(source).expect_err(source);
        assert!(!reason.contains("syntax"), "{source}: {reason}");
    }
    for (open, middle, close) in [
        ("(", "1", ")"),
        ("[", "", "]"),
        ("{1:", "1", "}"),
        ("not ", "1", ""),
        ("-", "1", ""),
        ("+", "1", ""),
        ("", "x", ".a"),
        ("", "x", "[0]"),
        ("", "x", "()"),
        ("", "'a'", "|upper"),
        ("", "1", "+1"),
        ("", "1", "~1"),
        ("1 if 1 else ", "1", ""),
        ("(1 if 1 else ", "1", ")"),
        ("", "1", " if 1"),
        ("2**", "2", ""),
        ("", "1", " and 1"),
        ("", "1", " or 1"),
        ("", "1", " == 1"),
        ("x(", "1", ")"),
        ("x[", "1", "]"),
        ("1|default(", "1", ")"),
        ("", "1", " is odd"),
        ("1 is in [", "1", "]"),
        ("(", "1", ",)"),
        ("x(*", "1", ")"),
        ("x(a=", "1", ")"),
        ("", "x", "[:]"),
    ] {
        for times in [100, 500, 20_000] {
            let _ = outcome(&format!("{{{{ {}{middle}{} }}}}", open.repeat(times), close.repeat(times)));
        }
    }
    for (open, close) in [
        ("{% if 1 %}", "{% endif %}"),
        ("{% for i in [1] %}", "{% endfor %}"),
        ("{% with %}", "{% endwith %}"),
        ("{% set x %}", "{% endset %}"),
        ("{% macro m() %}", "{% endmacro %}"),
        ("{% filter upper %}", "{% endfilter %}"),
        ("{% generation %}", "{% endgeneration %}"),
        ("{% call m() %}", "{% endcall %}"),
        ("{% if 0 %}{% else %}", "{% endif %}"),
        ("{% if 0 %}{% elif 0 %}", "{% endif %}"),
        ("{% raw %}", "{% endraw %}"),
        ("{# ", " #}"),
    ] {
        for times in [100, 8000] {
            let _ = outcome(&format!("{}x{}", open.repeat(times), close.repeat(times)));
            let _ = outcome(&open.repeat(times));
        }
    }
    let _ = outcome(&format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000)));
    let _ = outcome(&format!("{{% for {}x{} in 1 %}}{{% endfor %}}", "(".repeat(5000), ")".repeat(5000)));
    let _ = outcome(&format!("{{{{ '{}'.format(1) }}}}", "{".repeat(9999)));
    let _ = outcome(&format!("{{{{ '{{{}}}'.format(1) }}}}", "0[a]".repeat(9999)));
    let _ = outcome(&format!("{{{{ '%{}' % 1 }}}}", "(".repeat(9999)));
    let _ = outcome(&format!("{{{{ [1] | map(attribute='{}') | list }}}}", "a.".repeat(50_000)));
    let _ = outcome(&format!("{{{{ '{{0{}}}'.format(1) }}}}", "[".repeat(200_000)));
    let _ = outcome(&format!(
        "{{% macro m({}) %}}{{% endmacro %}}",
        (0..40_000).map(|i| format!("a{i},")).collect::<String>()
    ));
    let _ = outcome(&format!("{{{{ dict({}) }}}}", (0..30_000).map(|i| format!("a{i}=1,")).collect::<String>()));
    // Deep values are refused when they are made, so that nothing can free or walk them later.
    refused(
        "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}done",
        &["nested too deep"],
    );
}

/// Operands that are large, shared, deep, unusual or stateful.
fn operand() -> BoxedStrategy<String> {
    let names = [
        "x",
        "y",
        "ns",
        "ns.x",
        "ns.y",
        "m",
        "messages",
        "messages[0]",
        "nothing",
        "none",
        "true",
        "c",
        "j",
        "loop",
        "range",
        "dict",
        "0",
        "1",
        "-1",
        "2",
        "7",
        "1000",
        "10**6",
        "10**12",
        "-10**12",
        "10**37",
        "0.5",
        "1e308",
        "('nan'|float)",
        "'a'",
        "''",
        "'é'",
        "'%s'",
        "'%d %s'",
        "'{}'",
        "'{0:>{1}}'",
        "'{:>999999}'",
        "'x' * 10**5",
        "'x' * 10**6",
        "'a b ' * 10**4",
        "'\\n' * 10**5",
        "[]",
        "{}",
        "()",
        "[1, 2]",
        "{'a': 1}",
        "range(10)",
        "range(100000)",
        "[1] * 10**5",
        "[[]] * 10**4",
        "(1,) * 10**5",
        "x.items()",
        "[ns]",
        "[m, m]",
        "[c]",
        "('<' | e)",
        "x | list",
        "x | reverse",
        "x | map('string')",
    ];
    prop::sample::select(names.to_vec()).prop_map(|name| format!("({name})")).boxed()
}

fn expression() -> impl Strategy<Value = String> {
    operand().prop_recursive(5, 40, 3, |inner| {
        let binary = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", "in", "not in", "and", "or"];
        let filters = [
            "abs",
            "batch(A)",
            "batch(A, B)",
            "capitalize",
            "center(A)",
            "count",
            "default(A)",
            "default(A, true)",
            "dictsort",
            "e",
            "first",
            "float",
            "format(A)",
            "format(A, B)",
            "groupby(A)",
            "indent(A)",
            "indent(A, true, true)",
            "int",
            "int(A, B)",
            "items",
            "join",
            "join(A)",
            "last",
            "length",
            "list",
            "lower",
            "map(A)",
            "map('upper')",
            "map(attribute=A)",
            "map('join', A)",
            "max",
            "min",
            "reject",
            "replace(A, B)",
            "reverse",
            "round",
            "round(A)",
            "round(A, 'ceil')",
            "select",
            "select(A, B)",
            "slice(A)",
            "slice(A, B)",
            "sort",
            "sort(attribute=A)",
            "string",
            "sum",
            "sum(start=A)",
            "title",
            "tojson",
            "tojson(indent=A)",
            "tojson(sort_keys=true)",
            "trim(A)",
            "truncate(A)",
            "unique",
            "upper",
            "urlencode",
            "wordcount",
            "safe",
            "attr(A)",
            "filesizeformat",
            "selectattr(A)",
            "forceescape",
        ];
        let methods = [
            "split()",
            "split(A)",
            "split(A, B)",
            "rsplit(A)",
            "replace(A, B)",
            "format(A, B)",
            "join(A)",
            "center(A)",
            "ljust(A, B)",
            "zfill(A)",
            "strip(A)",
            "count(A)",
            "index(A)",
            "find(A)",
            "startswith(A)",
            "splitlines()",
            "title()",
            "upper()",
            "expandtabs(A)",
            "items()",
            "keys()",
            "values()",
            "get(A, B)",
            "copy()",
            "partition(A)",
            "append(A)",
            "next()",
            "cycle(A)",
            "changed(A)",
            "removeprefix(A)",
            "isalpha()",
            "swapcase()",
        ];
        let tests = [
            "odd",
            "even",
            "divisibleby A",
            "lower",
            "in A",
            "sameas A",
            "eq A",
            "lt A",
            "sequence",
            "iterable",
            "mapping",
            "defined",
        ];
        let three = (inner.clone(), inner.clone(), inner.clone());
        let fill = |form: &str, a: &str, b: &str| form.replace('A', a).replace('B', b);
        prop_oneof![
            (three.clone(), prop::sample::select(binary.to_vec()))
                .prop_map(|((a, b, _), op)| format!("({a} {op} {b})")),
            (three.clone(), prop::sample::select(filters.to_vec()))
                .prop_map(move |((a, b, c), filter)| format!("({a} | {})", fill(filter, &b, &c))),
            (three.clone(), prop::sample::select(methods.to_vec()))
                .prop_map(move |((a, b, c), method)| format!("{a}.{}", fill(method, &b, &c))),
            (three.clone(), prop::sample::select(tests.to_vec()))
                .prop_map(move |((a, b, c), test)| format!("({a} is {})", fill(test, &b, &c))),
            (
                three.clone(),
                prop::sample::select(
                    [
                        "[A, B]",
                        "[A, A]",
                        "(A, B)",
                        "{'a': A, 'b': B}",
                        "{A: B}",
                        "A[B]",
                        "A[B:]",
                        "A[::B]",
                        "A(B)",
                        "A if B",
                        "A if B else A",
                        "not A",
                        "-A",
                        "dict(A)",
                        "range(A, B)",
                        "namespace(x=A)",
                        "cycler(A, B)",
                        "joiner(A)",
                        "[A] * B",
                        "strftime_now(A)",
                        "raise_exception(A)",
                        "range(A)",
                    ]
                    .to_vec()
                )
            )
                .prop_map(move |((a, b, _), form)| format!("({})", fill(form, &a, &b))),
        ]
    })
}

fn template() -> impl Strategy<Value = String> {
    let e = expression;
    let statement = prop_oneof![
        e().prop_map(|a| format!("{{{{ {a} }}}}")),
        e().prop_map(|a| format!("{{% set x = {a} %}}")),
        e().prop_map(|a| format!("{{% set ns.x = {a} %}}")),
        (e(), e()).prop_map(|(a, b)| format!("{{% for i in range(50) %}}{{% set ns.x = [{a}, {b}] %}}{{% endfor %}}")),
        (e(), e()).prop_map(|(a, b)| format!(
            "{{% for i in {a} %}}{{% set ns.y = loop %}}{{{{ {b} }}}}{{{{ loop.length }}}}{{% endfor %}}"
        )),
        e().prop_map(|a| format!("{{% for i in {a} recursive %}}{{{{ loop({a}) }}}}{{% endfor %}}")),
        (e(), e()).prop_map(|(a, b)| format!(
            "{{% macro m(v) %}}{{{{ {a} }}}}{{{{ m({b}) }}}}{{% endmacro %}}{{{{ m(1) }}}}"
        )),
        e().prop_map(|a| format!("{{% if {a} %}}{{% set y = x %}}{{% endif %}}")),
        e().prop_map(|a| format!("{{% set y %}}{{{{ {a} }}}}{{% endset %}}")),
        e().prop_map(|a| format!("{{% for i in range(9) if {a} %}}{{{{ loop.nextitem }}}}{{% endfor %}}")),
        e().prop_map(|a| format!("{{% call(v) m({a}) %}}{{{{ {a} }}}}{{% endcall %}}")),
    ];
    let start = "{% macro m(v) %}{{ caller(v) if caller is defined }}{% endmacro %}{% set c = cycler(1, 'a') %}{% set j = joiner() %}";
    prop::collection::vec(statement, 1..4).prop_map(move |all| format!("{start}{SHARED}{}", all.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn compositions_of_nasty_values_and_operations_end(source in template()) {
        let _ = outcome(&source);
    }

    #[test]
    fn no_bytes_break_the_parser(source in "(\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}|[-+a-z0-9 .|(),:'\"\\[\\]{}=<>*/~%\n\\\\é]|for|in|if|endif|endfor|set|macro|raw|endraw|is|not){0,60}") {
        let _ = outcome(&source);
    }
}
