//! The official runtime clients, unmodified, as custom runtimes.
//!
//! Building them takes minutes and toolchains, so it is done elsewhere: `MARTLET_TEST_CLIENTS` names a directory with one
//! package for each client. A package's handler prints `printed`, fails with `wanted` for the event `"fail"` and returns
//! `{"event": ..., "id": <request id>}` otherwise.

use crate::world::{Function, World, failure, invoke, shown, tail};
use std::path::PathBuf;

pub(crate) async fn the_official_clients_run_unmodified(world: World) {
    let Some(packages) = std::env::var_os("MARTLET_TEST_CLIENTS").map(PathBuf::from) else { return };
    for client in ["awslambdaric", "aws-lambda-ric", "lambda_runtime", "aws-lambda-go"] {
        let code_dir = packages.join(client);
        if !code_dir.join("bootstrap").exists() {
            println!("{client} is not there");
            continue;
        }
        let function = Function { memory_mb: 512, ..Function::new("provided.al2023") };
        let mut environment =
            world.host.start(world.deploy_from(function, code_dir)).await.expect("an environment");
        for event in ["1", r#"{"k":["ü"]}"#] {
            let completed = invoke(&mut environment, event).await;
            assert!(completed.function_error.is_none(), "{client} {}", shown(&completed));
            let answer: serde_json::Value = serde_json::from_slice(&completed.payload).expect("JSON");
            assert_eq!(
                answer["event"],
                serde_json::from_str::<serde_json::Value>(event).expect("JSON"),
                "{client}"
            );
            let start = tail(&completed)[0];
            assert!(start.contains(answer["id"].as_str().expect("an id")), "{client} {start}");
            assert!(
                tail(&completed).iter().any(|line| line.ends_with("printed")),
                "{client} {}",
                shown(&completed)
            );
            environment.freeze();
        }
        let (document, completed) = failure(&mut environment, "\"fail\"").await;
        assert_eq!(document["errorMessage"], "wanted", "{client} {}", shown(&completed));
        let big = format!("\"{}\"", "x".repeat(5_000_000));
        let completed = invoke(&mut environment, big).await;
        assert!(completed.payload.len() > 5_000_000, "{client} {}", shown(&completed));
        println!("{client} runs");
        environment.stop().await;
    }
}
