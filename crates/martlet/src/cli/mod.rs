//! The command line: what can be asked, and the help that teaches it. Each command lives in a file of its own.

mod flags;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

pub(crate) use flags::SettingFlags;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Green.on_default());

const EXAMPLES: &str = "\
A first function in a minute:
  martlet up &
  martlet deploy examples/hello-python
  martlet invoke hello-python --payload '{\"name\": \"Ada\"}' --tail
  martlet logs hello-python

Any AWS client works as well:
  export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
  export AWS_SHARED_CREDENTIALS_FILE=~/.local/share/martlet/credentials
  aws lambda list-functions

`martlet COMMAND --help` has examples for each command.";

/// Runs functions written for AWS Lambda on this machine, each in a sandbox of its own.
#[derive(Debug, Parser)]
#[command(name = "martlet", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// How results are written to stdout
    #[arg(long, global = true, value_enum, default_value_t = Output::Text, value_name = "FORMAT", help_heading = "Everywhere")]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are written to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    // For people.
    Text,
    // For programs: one document; a line each where results keep coming.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server
    Up(Box<UpArgs>),
    /// Create a function from a directory or a zip file, or update it
    Deploy(DeployArgs),
    /// Run a function once and print its answer
    Invoke(InvokeArgs),
    /// Print a function's logs
    Logs(LogsArgs),
    /// Show a function's aliases, or move one to another version
    Alias(AliasArgs),
    /// List functions
    Ls(LsArgs),
    /// Delete a function with all its versions
    Rm(RmArgs),
    /// List the runtimes that this machine has
    Runtimes(RuntimesArgs),
    /// Tell what this machine can isolate, and how to mend what it cannot
    Doctor(DoctorArgs),
    /// Print the completion script for a shell
    Completions(CompletionsArgs),
}

/// How a command finds the server and who it says it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// The server's address [else: MARTLET_ENDPOINT, AWS_ENDPOINT_URL, http://127.0.0.1:4566]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// A profile of the shared credentials file [else: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,
    /// AWS_SHARED_CREDENTIALS_FILE, the local data directory]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  martlet up                                   serve 127.0.0.1:4566
  martlet up --data-dir ./data --listen 127.0.0.1:0
  martlet up --isolation no-cgroups --tmp memory
                                               weaker, where a machine cannot do more
  martlet up --dev                             accept any signature; for local work only
  martlet up --dev --cold                      give each call a new environment, to measure cold starts
  martlet up --print-config                    every setting, its value and where that was set

Each setting can also be given in a file (martlet.toml in the data directory, or
--config FILE) and in the environment: MARTLET_LISTEN for `listen`,
MARTLET_GATEWAY_MAX_HEADERS for `gateway.max_headers`. Flags win over the
environment, the environment over the file.

SIGTERM and SIGINT stop the server once running invocations are done; a second
one stops it at once.

Exit codes: 0 stopped, and nothing was cut short; 1 could not start, or had to
cut invocations short; 2 the configuration is wrong.")]
pub(crate) struct UpArgs {
    /// The configuration file [else: MARTLET_CONFIG, then martlet.toml in the data directory if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print every setting with its value and where that was set, then exit
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  martlet deploy examples/hello-python
  martlet deploy build/api.zip --name api --memory 512 --timeout 10 --env STAGE=test
  martlet deploy service --runtime provided.al2023      an executable named bootstrap
  martlet deploy api --alias live              publish it and move live to it

Runtime and handler are guessed from the files: a function named handler or
lambda_handler in lambda_function.py, app.py, index.mjs, ..., or an executable
named bootstrap. A function that exists keeps every setting that is not given.")]
pub(crate) struct DeployArgs {
    /// A directory or a zip file
    pub(crate) path: PathBuf,
    /// The function's name [else: the name of the directory or zip file]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The runtime, such as python3.12 [else: guessed from the files]
    #[arg(long)]
    pub(crate) runtime: Option<String>,
    /// The handler, such as app.handler [else: guessed from the files]
    #[arg(long)]
    pub(crate) handler: Option<String>,
    /// Memory in MB; CPU comes in proportion
    #[arg(long, value_name = "MB")]
    pub(crate) memory: Option<u32>,
    /// Longest time that an invocation may take, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
    /// An environment variable of the function; repeat for more. Replaces all that were set before
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The ARN of the execution role
    #[arg(long, value_name = "ARN")]
    pub(crate) role: Option<String>,
    /// Publish a version and move this alias to it, in one step for its callers
    #[arg(long, value_name = "ALIAS")]
    pub(crate) alias: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  martlet invoke hello --payload '{\"name\": \"Ada\"}'
  martlet invoke hello --payload @event.json --tail
  generate-event | martlet invoke hello --payload -
  martlet invoke hello --event                 queue it and do not wait

The answer goes to stdout. When the function fails, its error goes to stderr and
the exit code is 1.")]
pub(crate) struct InvokeArgs {
    /// The function: a name, name:qualifier or an ARN
    pub(crate) name: String,
    /// The event: JSON text, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub(crate) payload: Option<String>,
    /// Queue the event and return at once
    #[arg(long, conflicts_with = "tail")]
    pub(crate) event: bool,
    /// Print the end of the invocation's log to stderr
    #[arg(long)]
    pub(crate) tail: bool,
    /// The version or alias to run
    #[arg(long)]
    pub(crate) qualifier: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  martlet logs hello
  martlet logs hello -f                        keep printing what comes
  martlet logs hello --since 2h
  martlet logs hello --request-id 8a1f...      one invocation")]
pub(crate) struct LogsArgs {
    /// The function's name
    pub(crate) name: String,
    /// Keep printing what comes, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How far back to begin: a number with s, m, h or d [default: 10m; 1d with --request-id]
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only the records of this invocation
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  martlet alias api                            list its aliases
  martlet alias api live 3                     all calls go to version 3, from now on
  martlet alias api live 3 --canary 4=10       10 % of them to version 4
  martlet alias api live --rm

An alias moves in one step: no call is lost, and none runs what it meant before
once the command has answered. Rolling back is moving it to the version before.")]
pub(crate) struct AliasArgs {
    /// The function's name
    pub(crate) function: String,
    /// The alias
    pub(crate) alias: Option<String>,
    /// The version that it is to mean; the alias is made if it is not there
    pub(crate) version: Option<String>,
    /// Another version, and its share of the calls
    #[arg(long, value_name = "VERSION=PERCENT", requires = "version")]
    pub(crate) canary: Option<String>,
    /// Delete the alias
    #[arg(long, requires = "alias", conflicts_with = "version")]
    pub(crate) rm: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Show handlers, ARNs, descriptions, and how environments start too
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The functions' names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RuntimesArgs {}

#[derive(Debug, Args)]
#[command(after_help = "\
Looks at what `martlet up` would use. The exit code is 1 when full isolation is
not possible.")]
pub(crate) struct DoctorArgs {
    /// The data directory to look at [else: as `martlet up` finds it]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  martlet completions bash > ~/.local/share/bash-completion/completions/martlet
  martlet completions zsh > ~/.zfunc/_martlet
  martlet completions fish > ~/.config/fish/completions/martlet.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_are_flags_of_up() {
        let cli = Cli::try_parse_from(["martlet", "up", "--dev", "--gateway-max-headers", "20"]).unwrap();
        let Command::Up(up) = cli.command else { panic!("parsed as {:?}", cli.command) };
        let given: Vec<_> = up.settings.0.iter().map(|(key, text)| (key.name, text.as_str())).collect();
        assert_eq!(given, [("dev", "true"), ("gateway.max_headers", "20")]);
    }
}
