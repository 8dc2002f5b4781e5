use super::*;
use proptest::prelude::*;

fn registry(external: &[&str]) -> Registry {
    let function = FunctionShown {
        function_name: "f".into(),
        function_version: "$LATEST".into(),
        handler: "app.handler".into(),
        account_id: None,
    };
    let external: Vec<String> = external.iter().map(|name| (*name).to_owned()).collect();
    Registry::new(function, &external)
}

fn events(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn invoke(registry: &mut Registry) {
    registry.invoke("id", "arn", "Root=1", Timestamp(7));
}

fn error_type<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.unwrap_err().error_type
}

#[test]
fn the_runtime_waits_for_external_ones_and_the_invocation_for_all_that_asked() {
    let mut registry = registry(&["a", "b"]);
    assert!(!registry.all_registered());
    registry.register("a", &events(&["INVOKE", "SHUTDOWN"]), "1").unwrap();
    registry.register("b", &events(&["SHUTDOWN"]), "2").unwrap();
    registry.register("inside", &events(&["INVOKE"]), "3").unwrap();
    assert!(registry.all_registered() && !registry.all_waiting());
    for id in ["1", "2", "3"] {
        registry.next(id).unwrap();
    }
    assert!(registry.all_waiting(), "the init phase is over");

    invoke(&mut registry);
    assert!(!registry.all_waiting());
    assert_eq!(
        (registry.has_event("1"), registry.has_event("2"), registry.has_event("3")),
        (true, false, true)
    );
    assert_eq!(
        registry.event("1").unwrap(),
        r#"{"eventType":"INVOKE","deadlineMs":7,"requestId":"id","invokedFunctionArn":"arn","tracing":{"type":"X-Amzn-Trace-Id","value":"Root=1"}}"#
    );
    assert_eq!(registry.event("1"), None, "each is told once");
    registry.event("3").unwrap();
    registry.next("1").unwrap();
    assert!(!registry.all_waiting());
    registry.next("3").unwrap();
    assert!(registry.all_waiting());

    invoke(&mut registry);
    registry.shut_down(Reason::Timeout, Timestamp(9));
    assert_eq!(
        registry.event("1").unwrap(),
        r#"{"eventType":"SHUTDOWN","deadlineMs":9,"shutdownReason":"TIMEOUT"}"#,
        "what it did not come for before is forgotten"
    );
    assert_eq!(registry.event("3"), None);
    assert!(registry.ends_by_itself(0) && registry.ends_by_itself(1) && !registry.ends_by_itself(2));
}

#[test]
fn what_is_out_of_order_is_refused_by_name() {
    let mut registry = registry(&["a"]);
    assert_eq!(error_type(registry.register("", &[], "1")), "Extension.InvalidExtensionName");
    assert_eq!(error_type(registry.register("a", &events(&["START"]), "1")), "Extension.InvalidEventType");
    assert_eq!(
        error_type(registry.register("in", &events(&["SHUTDOWN"]), "1")),
        "Extension.InvalidEventType"
    );
    assert_eq!(error_type(registry.next("1")), "Extension.UnknownExtensionIdentifier");
    assert_eq!(error_type(registry.next("")), "Extension.UnknownExtensionIdentifier");
    registry.register("a", &[], "1").unwrap();
    let again = registry.register("a", &[], "2").unwrap_err();
    assert_eq!(
        again.message,
        "State transition from Registered to Registered failed for extension a. Error: State transition is not allowed"
    );
    registry.register("in", &[], "2").unwrap();
    assert_eq!(error_type(registry.register("in", &[], "3")), "Extension.InvalidExtensionState");
    for number in 2..EXTENSIONS {
        registry.register(&number.to_string(), &[], &format!("id {number}")).unwrap();
    }
    assert_eq!(error_type(registry.register("one more", &[], "x")), "Extension.TooManyExtensions");
    registry.close();
    assert_eq!(error_type(registry.register("late", &[], "x")), "Extension.RegistrationClosed");
    registry.next("1").unwrap();
    assert_eq!(error_type(registry.init_error("1", "X")), "Extension.InvalidExtensionState");
    assert_eq!(registry.take_failed(), None);
}

#[test]
fn the_first_failure_counts_and_is_told_once() {
    let mut registry = registry(&["a"]);
    registry.register("a", &[], "1").unwrap();
    registry.init_error("1", "Extension.Mine").unwrap();
    registry.init_error("1", "Extension.Other").unwrap();
    registry.exited(0, "exit status 1");
    let failed = registry.take_failed().unwrap();
    assert_eq!(
        (failed.error_type, failed.reason.as_str()),
        ("Extension.InitError", "a failed to start: Extension.Mine")
    );
    assert_eq!(registry.take_failed(), None);
    assert_eq!(registry.standings()[0].state, "Exited");
}

proptest! {
    /// Whatever extensions call, an event goes to each that asked once, and none is waited for that has been told nothing.
    #[test]
    fn calls_in_any_order_break_nothing(calls in proptest::collection::vec((0u8..8, 0u8..4), 0..200)) {
        let mut registry = registry(&["0", "1"]);
        let mut told = [0u32; 4];
        let mut put_up = 0;
        for (call, who) in calls {
            let id = format!("id {who}");
            match call {
                0 => drop(registry.register(&who.to_string(), &events(&["INVOKE"]), &id)),
                1 | 2 => drop(registry.next(&id)),
                3 | 4 => {
                    let ready = registry.has_event(&id);
                    let event = registry.event(&id);
                    prop_assert_eq!(ready, event.is_some());
                    told[usize::from(who)] += u32::from(event.is_some());
                    prop_assert!(event.is_none() || !registry.all_waiting(), "it has been told something");
                }
                5 if registry.all_waiting() => {
                    invoke(&mut registry);
                    put_up += 1;
                }
                6 => drop(registry.exit_error(&id, "X")),
                7 => registry.close(),
                _ => {}
            }
            prop_assert!(told.iter().all(|told| *told <= put_up));
            prop_assert!(registry.standings().len() <= EXTENSIONS);
        }
    }
}
