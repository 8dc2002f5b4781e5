//! A function in Rust for provided.al2023, with the official runtime client.
//!
//!     cargo build --release && zip -j function.zip target/release/bootstrap
//!     martlet deploy function.zip --name hello-rust

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Greeting {
    #[serde(default = "everybody")]
    name: String,
    #[serde(default)]
    fail: bool,
}

fn everybody() -> String {
    "world".to_owned()
}

#[derive(Serialize)]
struct Answer {
    message: String,
    function: String,
    request_id: String,
}

async fn handle(event: LambdaEvent<Greeting>) -> Result<Answer, Error> {
    let (greeting, context) = event.into_parts();
    if greeting.fail {
        return Err("asked to fail".into());
    }
    println!("greeting {}", greeting.name);
    Ok(Answer {
        message: format!("Hello, {}!", greeting.name),
        function: context.env_config.function_name.clone(),
        request_id: context.request_id,
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}
