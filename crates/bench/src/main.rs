//! What `bench/run` measures with: a bare hyper server as the floor, and a closed-loop load generator that signs.
//!
//! The generator is one blocking thread a connection and a request that is built once, so that what it costs itself is
//! small and the same for the floor and for Martlet.

mod floor;
mod load;
mod ping;
mod sign;

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "martlet-bench", about = "The floor to measure against, and the load to measure with")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve hello-world with bare hyper: GET gets a greeting, POST gets its own body back. Prints its address
    Floor {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Send requests as fast as they are answered; prints one JSON document
    Load(Box<load::Options>),
    /// Send a few bytes to another process over a Unix socket and back, again and again; prints one JSON document
    Ping {
        /// How long
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// The other process of `ping`
    #[command(hide = true)]
    Echo,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Floor { listen } => floor::serve(listen),
        Command::Load(options) => load::run(&options),
        Command::Ping { seconds } => ping::play(seconds),
        Command::Echo => ping::echo(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            eprintln!("martlet-bench: {text}");
            ExitCode::FAILURE
        }
    }
}
