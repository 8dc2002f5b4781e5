//! The Python bootstrap as a template, on every Python of this machine.

use super::PYTHON_OPTIONS;
use super::harness::Package;
use super::park_harness::{
    NAMESPACES, REQUEST, Reply, Template, all_differ, failing_hooks_are_told, request, value,
};
use super::python_tests::INTERPRETERS;
use crate::frame::{InvokeMeta, Kind, RestoreMeta, invoke_head, restore};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Starts a template of `files` on each interpreter.
fn on_each(files: &[(&str, &str)], test: impl Fn(Template)) {
    let package = Package::new(files);
    for python in INTERPRETERS.iter() {
        test(start(python, &package, &[("PYTHONDONTWRITEBYTECODE", "1")]));
    }
}

fn start(python: &Path, package: &Package, extra: &[(&str, &str)]) -> Template {
    let command = [&[python.to_str().unwrap()], PYTHON_OPTIONS.as_slice()].concat();
    Template::start(&command, false, package, extra)
}

#[test]
fn children_answer_for_themselves() {
    let code = "
import os
count = 0
def handler(event, context):
    global count
    count += 1
    print('said by', event)
    return [event, count, os.environ.get('AWS_LAMBDA_LOG_STREAM_NAME'), context.log_stream_name, '_MARTLET_TEMPLATE' in os.environ]
";
    on_each(&[("app.py", code)], |template| {
        let template = template.parked();
        let mut one = template.child(&[("AWS_LAMBDA_LOG_STREAM_NAME", "one")]);
        let mut two = template.child(&[("AWS_LAMBDA_LOG_STREAM_NAME", "two")]);
        assert_eq!(value(&mut one, "1"), json!([1, 1, "one", "one", false]));
        assert_eq!(value(&mut one, "2"), json!([2, 2, "one", "one", false]));
        assert_eq!(value(&mut two, "3"), json!([3, 1, "two", "two", false]));
        let mut one_log = one.finish_forked().concat();
        one_log.retain(|c| c != '\n');
        assert_eq!(one_log, "said by 1said by 2");
        assert_eq!(two.finish_forked().concat().trim_end(), "said by 3");
    });
}

#[test]
fn the_first_event_may_come_with_what_a_child_is_told() {
    let code = "
def handler(event, context):
    return [event, context.aws_request_id, context.log_stream_name]
";
    on_each(&[("app.py", code)], |template| {
        let template = template.parked();
        let mut child = template.fork();
        let env = BTreeMap::from([("AWS_LAMBDA_LOG_STREAM_NAME", "one")]);
        let mut bytes = restore(&RestoreMeta { env: &env }).to_vec();
        let meta = InvokeMeta { id: "first", deadline: 7, arn: "arn", trace: "", client: None, tenant: None };
        bytes.extend_from_slice(&invoke_head(1, &meta, 3));
        bytes.extend_from_slice(b"\"a\"");
        child.write(&bytes);
        assert_eq!(child.receive().map(|frame| frame.kind), Some(Kind::Ready));
        let answer = child.receive().expect("an answer");
        assert_eq!((answer.kind, answer.sequence), (Kind::Response, 1));
        assert_eq!(serde_json::from_slice::<Value>(&answer.payload).unwrap(), json!(["a", "first", "one"]));
    });
}

#[test]
fn rehearsing_events_leaves_nothing_behind() {
    let code = "
import os
os.environ['_X_AMZN_TRACE_ID'] = 'of init'
def left():
    descriptors = {name: os.readlink('/proc/self/fd/' + name) for name in sorted(os.listdir('/proc/self/fd'))
                   if os.path.exists('/proc/self/fd/' + name)}
    return [os.environ['_X_AMZN_TRACE_ID'], len(descriptors), sum(target.startswith('pipe') for target in descriptors.values())]
before = left()
from snapshot_restore_py import register_after_restore
after = []
register_after_restore(lambda: after.extend(left()))
def handler(event, context):
    descriptors = os.listdir('/proc/self/fd')
    return [before, after, len(descriptors)]
";
    on_each(&[("app.py", code)], |template| {
        let template = template.parked();
        let mut child = template.child(&[]);
        let first = value(&mut child, "0");
        // The socket on which it was asked to fork is gone.
        let (before, after) = (&first[0], &first[1]);
        assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
        assert_eq!(after[1].as_u64().map(|count| count + 1), before[1].as_u64());
        assert_eq!(value(&mut child, "0")[2], first[2]);
    });
}

#[test]
fn nothing_random_is_the_same_in_two_children() {
    let code = "
import random, uuid, secrets, tempfile, ssl, os
try:
    import numpy.random
except ImportError:
    numpy = None
random.random(), uuid.uuid4(), uuid.uuid1(), secrets.token_hex(), ssl.RAND_bytes(8), next(tempfile._get_candidate_names())
def handler(event, context):
    values = [random.random(), uuid.uuid4().hex, uuid.uuid1().hex, secrets.token_hex(8), ssl.RAND_bytes(8).hex(),
              next(tempfile._get_candidate_names()), os.urandom(8).hex()]
    if numpy:
        values.append(float(numpy.random.random()))
    return values
";
    on_each(&[("app.py", code)], |template| {
        let template = template.parked();
        let values: Vec<Value> = (0..3).map(|_| value(&mut template.child(&[]), "0")).collect();
        all_differ(&values);
    });
}

const HOOKS: &str = "
from snapshot_restore_py import register_before_snapshot, register_after_restore
import os
calls = []
def note(name, more=''):
    calls.append(name + more)
register_before_snapshot(note, 'before 1')
@register_before_snapshot
def before():
    note('before 2')
register_after_restore(note, 'after 1', more='!')
@register_after_restore
def after():
    note('after 2 ' + os.environ['NAME'])
def handler(event, context):
    return calls
";

#[test]
fn hooks_run_around_the_fork_in_their_order() {
    let expected = json!(["before 2", "before 1", "after 1!", "after 2 here"]);
    // The real package's interface, as a function may bring it along.
    let own_copy = super::PYTHON_HOOKS;
    for files in [&[("app.py", HOOKS)][..], &[("app.py", HOOKS), ("snapshot_restore_py.py", own_copy)]] {
        on_each(files, |template| {
            let template = template.parked();
            let mut child = template.child(&[("NAME", "here")]);
            assert_eq!(value(&mut child, "0"), expected);
        });
    }
}

#[test]
fn hooks_that_fail_are_told() {
    let code = "
import os
from snapshot_restore_py import register_before_snapshot, register_after_restore
def fail():
    raise ValueError('not like this')
(register_before_snapshot if os.environ['WHEN'] == 'before' else register_after_restore)(fail)
handler = print
";
    let package = Package::new(&[("app.py", code)]);
    for python in INTERPRETERS.iter() {
        failing_hooks_are_told(|when| start(python, &package, &[("WHEN", when)]), "ValueError");
    }
}

#[test]
fn what_a_fork_would_break_is_said_and_served_all_the_same() {
    let cases = [
        (
            "import threading, time\nt = threading.Thread(target=time.sleep, args=(60,), daemon=True, name='poller')\nt.start()",
            "'poller'",
        ),
        ("import _thread, time\n_thread.start_new_thread(time.sleep, (60,))", "threads"),
        ("import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))", "socket"),
        ("import socket\nk = socket.socketpair()", "socket"),
        ("import select\ne = select.epoll()", "event loop"),
        ("import os\np = os.pipe()", "pipe"),
        (
            "import subprocess\np = subprocess.Popen(['sleep', '60'], stdin=subprocess.DEVNULL)\nimport atexit\natexit.register(p.kill)",
            "processes",
        ),
        ("import tempfile\nf = tempfile.TemporaryFile()\nf.write(b'x')", "deleted"),
    ];
    for (code, reason) in cases {
        let code = format!("{code}\ndef handler(event, context):\n    return event\n");
        on_each(&[("app.py", &code)], |mut template| {
            template.serves_unforked(reason);
        });
    }
}

#[test]
fn an_open_file_has_a_position_of_its_own_in_each_child() {
    let code = "
import os
file = open(os.path.join(os.environ['LAMBDA_TASK_ROOT'], 'data.txt'), buffering=1)
raw = os.open(os.path.join(os.environ['LAMBDA_TASK_ROOT'], 'data.txt'), os.O_RDONLY)
os.read(raw, 2)
def handler(event, context):
    return os.read(raw, event).decode()
";
    on_each(&[("app.py", code), ("data.txt", "abcdefgh")], |template| {
        let template = template.parked();
        let (mut one, mut two) = (template.child(&[]), template.child(&[]));
        assert_eq!(value(&mut one, "3"), json!("cde"));
        assert_eq!(value(&mut two, "1"), json!("c"));
        assert_eq!(value(&mut one, "1"), json!("f"));
    });
}

#[test]
fn children_outlive_their_template() {
    on_each(
        &[("app.py", "import os\ndef handler(event, context):\n    return [event, os.getpid()]")],
        |template| template.parked().be_outlived(),
    );
}

#[test]
fn a_template_ends_with_its_park_socket() {
    on_each(&[("app.py", "handler = print")], |template| {
        let Template { runtime, .. } = template.parked().closed();
        assert_eq!(runtime.finish().0.code(), Some(0));
    });
}

#[test]
fn garbage_does_a_template_no_harm() {
    on_each(&[("app.py", "def handler(event, context):\n    return event")], |template| {
        let template = template.parked();
        let null = std::fs::File::open("/dev/null").unwrap();
        let null = null.as_fd();
        let open = || std::fs::read_dir(format!("/proc/{}/fd", template.runtime.id())).unwrap().count();
        let refused = Reply { status: -rustix::io::Errno::INVAL.raw_os_error(), step: REQUEST };
        // It says that it is parked a moment before it is; what it has open for that moment does not count.
        template.send(b"x", &[]);
        assert_eq!(template.reply(), refused);
        let before = open();
        let mut wrong_length = request(1, 0, &[3]);
        wrong_length.pop();
        let cases: [(Vec<u8>, usize); 9] = [
            (b"x".to_vec(), 0),
            (vec![255; 5000], 40),
            (request(2, 0, &[]), 0),
            (request(1, 0, &[3]), 0),
            (request(1, 0, &[]), 1),
            (request(1, 0, &[3, 3]), 2),
            (request(1, 0, &[5]), 1),
            (request(1, 0, &[-1]), 1),
            (wrong_length, 1),
        ];
        for (bytes, fds) in cases {
            template.send(&bytes, &vec![null; fds]);
            assert_eq!(template.reply(), refused, "{bytes:?}");
        }
        // No namespace: the helper finds out.
        template.send(&request(1, 1, &[]), &[null]);
        let reply = template.reply();
        assert_eq!((reply.status < 0, reply.step), (true, NAMESPACES));
        // Nothing has been left open, and it still works.
        let mut child = template.child(&[]);
        assert_eq!(child.invoke("5").text(), "5");
        // The template is done with a fork a moment after the child is.
        let patience = Instant::now() + Duration::from_secs(10);
        while open() != before {
            assert!(Instant::now() < patience, "{} descriptors instead of {before}", open());
            std::thread::yield_now();
        }
    });
}

/// Prints how long a fork takes, as the server sees it, beside a bare fork by the same interpreter:
/// `cargo test -p martlet-environment --release -- --ignored --nocapture python_fork_latency`
#[test]
#[ignore = "a measurement"]
fn python_fork_latency() {
    let code = "
import os, time, gc
def floor(count=100):
    times = []
    for _ in range(count):
        reader, writer = os.pipe()
        begun = time.perf_counter()
        pid = os.fork()
        if not pid:
            os.write(writer, b'x')
            os._exit(0)
        os.read(reader, 1)
        times.append(time.perf_counter() - begun)
        os.waitpid(pid, 0); os.close(reader); os.close(writer)
    return sorted(times)[count // 2] * 1e6
print('bare fork p50 %.0f us' % floor(), flush=True)
def handler(event, context):
    return event
";
    on_each(&[("app.py", code)], |template| {
        let template = template.parked();
        template.print_latency();
        let Template { runtime, .. } = template.closed();
        println!("{}", runtime.finish().1.concat());
    });
}
