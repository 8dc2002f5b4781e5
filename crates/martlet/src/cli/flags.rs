//! The flags of `martlet up`, made from the table of configuration keys, so that no setting is defined twice.

use crate::config::keys::{Fallback, KEYS, Key, Kind};
use clap::builder::StyledStr;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// The settings that were given as flags.
#[derive(Debug)]
pub(crate) struct SettingFlags(pub(crate) Vec<(&'static Key, String)>);

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| command.arg(argument(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static Key| matches.get_one::<String>(key.name).map(|text| (key, text.clone()));
        Ok(Self(KEYS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(key: &'static Key) -> Arg {
    let arg = Arg::new(key.name)
        .long(key.flag())
        .value_name(key.placeholder)
        .help(help(key))
        .help_heading("Settings")
        .action(ArgAction::Set);
    match key.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Choice(&["off", alone, ..]) => {
            arg.num_args(0..=1).require_equals(true).default_missing_value(alone)
        }
        _ => arg,
    }
}

fn help(key: &Key) -> StyledStr {
    let default = match key.default {
        Fallback::Fixed("" | "false") => String::new(),
        Fallback::Fixed(text) => format!(" [default: {text}]"),
        Fallback::DataDir => {
            " [default: /var/lib/martlet for root, ~/.local/share/martlet for others]".into()
        }
        Fallback::MemoryBudget => " [default: three quarters of the machine's memory]".into(),
    };
    let choices = match key.kind {
        Kind::Choice(words) => format!(" [one of: {}]", words.join(", ")),
        _ => String::new(),
    };
    format!("{}{choices}{default}", key.help).into()
}
