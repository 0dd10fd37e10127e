//! The commands, one file each. Results go to standard output, diagnostics to standard error.

/// Replaces the standard library's macro, which panics when standard error is closed.
macro_rules! eprint {
    ($($text:tt)*) => {
        $crate::cli::style::eprint(format_args!($($text)*))
    };
}

/// Replaces the standard library's macro for the same reason.
macro_rules! eprintln {
    ($($text:tt)*) => {
        eprint!("{}\n", format_args!($($text)*))
    };
}

mod cases;
mod check;
mod completions;
#[cfg(feature = "kafka")]
mod demo;
mod explain;
mod http_client;
mod init;
mod manual;
mod problems;
mod providers;
mod provision;
mod replay;
mod run;
mod samples;
mod schema;
mod send;
mod style;
mod tail;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{Config, ConfigFile, MAX_FILE, Origin};
use crate::printable::printable_lines;
use crate::table::{Problems, read_stream};
use crate::telemetry::{self, Levels, LogFormat};

/// Time to write the last log lines when nobody reads them: for a service that has flushed before, after an error, and
/// for a command that someone waits for.
const SUCCESS_FLUSH: Duration = Duration::from_millis(100);
const FAILURE_FLUSH: Duration = Duration::from_secs(1);
const COMMAND_FLUSH: Duration = Duration::from_secs(30);

use problems::Severity;

/// If no file is named, the first of these that exists is read.
const DEFAULT_CONFIGS: [&str; 2] = ["config/hookbridge.toml", "/etc/hookbridge/hookbridge.toml"];

const VERSION: &str = crate::VERSION_AND_COMMIT;

#[derive(Debug, Parser)]
#[command(name = "hookbridge", version = VERSION, about, max_term_width = 80)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Debug, Args)]
struct Logs {
    /// Log format; by default human on a terminal, json otherwise
    #[arg(long, global = true, value_enum, env = "HOOKBRIDGE_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// Levels to log: off, error, warn, info, debug or trace, or a list such as `info,hookbridge=debug`
    #[arg(long, global = true, value_name = "LEVELS", env = "HOOKBRIDGE_LOG")]
    log: Option<Levels>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Run(ConfigFiles),
    /// Write a commented configuration for a provider and a broker, with a first test
    Init(init::Options),
    /// Demonstrate the whole path on this machine: embedded Kafka, the bridge, a subscriber and sample events
    #[cfg(feature = "kafka")]
    Demo(demo::Options),
    /// Validate the configuration and print the routing table
    Check(check::Options),
    /// Explain what would happen to an event, without publishing it
    Explain(explain::Options),
    /// Run routing tests, without a broker or secrets
    Test(test::Options),
    /// Sign an event as its provider does and post it
    Send(send::Options),
    /// List the providers with presets, or describe one of them
    Providers(providers::Options),
    /// Subscribe to the configured topics and print messages as they arrive
    Tail(tail::Options),
    /// Create the topics and streams that the configuration needs and that do not exist yet
    Provision(provision::Options),
    /// Publish dead letters and events that took a fallback to their intended destinations
    Replay(replay::Options),
    /// Print the JSON Schema of the configuration, for editors
    Schema(schema::Options),
    /// Print a completion script for a shell
    Completions(completions::Options),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Manual(manual::Options),
}

impl Command {
    /// Whether the output is all that the command is for, and its exit status says nothing else.
    fn only_prints(&self) -> bool {
        matches!(
            self,
            Self::Tail(_)
                | Self::Providers(_)
                | Self::Schema(_)
                | Self::Completions(_)
                | Self::Manual(_)
        )
    }
}

#[derive(Debug, Clone, Args)]
struct ConfigFiles {
    /// Configuration file, or `-` for standard input; later files override earlier ones, and HOOKBRIDGE__SECTION__KEY
    /// variables override all. By default config/hookbridge.toml or /etc/hookbridge/hookbridge.toml is read
    #[arg(long = "config", value_name = "FILE", env = "HOOKBRIDGE_CONFIG")]
    files: Vec<PathBuf>,
}

impl ConfigFiles {
    /// For commands that verify nothing.
    fn load_without_signing_secrets(&self) -> Result<Config, Error> {
        Ok(self.origin()?.load_without_signing_secrets()?)
    }

    fn origin(&self) -> Result<Origin, Error> {
        // A variable that is not UTF-8 cannot be a setting.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut files = Vec::new();
        for path in self.paths()? {
            let name = path.display();
            let stream = read_stream(&path, MAX_FILE)
                .map_err(|error| format!("{name} can't be read: {error}"))?;
            files.push(match stream {
                Some(text) => ConfigFile::Text {
                    name: name.to_string(),
                    text,
                },
                None => ConfigFile::Path(path),
            });
        }
        Ok(Origin {
            files,
            environment: environment.collect(),
        })
    }

    fn reads_standard_input(&self) -> bool {
        let is_standard_input = |path: &PathBuf| {
            matches!(
                path.to_str(),
                Some("/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0")
            )
        };
        self.paths()
            .is_ok_and(|paths| paths.iter().any(is_standard_input))
    }

    fn paths(&self) -> Result<Vec<PathBuf>, String> {
        let named = self
            .files
            .iter()
            .filter(|file| !file.as_os_str().is_empty());
        let paths: Vec<_> = named
            .map(|file| match file.to_str() {
                Some("-") => PathBuf::from("/dev/stdin"),
                _ => file.clone(),
            })
            .collect();
        if !paths.is_empty() {
            return Ok(paths);
        }
        let found = DEFAULT_CONFIGS.iter().find(|file| Path::new(file).exists());
        found.map(|file| vec![PathBuf::from(file)]).ok_or_else(|| {
            format!(
                "no configuration found: neither {} exists; write one, or name it with --config or HOOKBRIDGE_CONFIG",
                DEFAULT_CONFIGS.join(" nor ")
            )
        })
    }
}

/// The result of a command that ran without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completion {
    Success,
    /// Ran, and found something wrong.
    Failure,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

type CommandResult = Result<Completion, Error>;

/// Runs the command named by the arguments. Exit status: 0 success, 1 failure, 2 usage error.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // To clap, help and version are "errors" with exit status 0. If printing them fails, there is nowhere to
            // report it.
            let _unprintable = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let is_service = matches!(arguments.command, Command::Run(_));
    let only_prints = arguments.command.only_prints();
    let outcome = arguments.run();
    let limit = match (&outcome, is_service) {
        (Ok(_), true) => SUCCESS_FLUSH,
        (Err(_), true) => FAILURE_FLUSH,
        (_, false) => COMMAND_FLUSH,
    };
    let code = match outcome {
        Ok(Completion::Success) => ExitCode::SUCCESS,
        Ok(Completion::Failure) => ExitCode::FAILURE,
        Err(error) if error.is::<clap::Error>() => {
            telemetry::say(&error.to_string());
            ExitCode::from(2)
        }
        // The reader has closed the pipe and wants no more. A command that was to find something out has not finished.
        Err(error) if is_broken_pipe(error.as_ref()) => match only_prints {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
        Err(error) => {
            match error.downcast_ref::<Problems>() {
                Some(problems) => report(problems),
                None => {
                    let told = describe(error.as_ref());
                    telemetry::say(&style::error(&printable_lines(&told)));
                }
            }
            ExitCode::FAILURE
        }
    };
    telemetry::flush(limit);
    code
}

fn parse() -> Result<Arguments, clap::Error> {
    let mut command = without_empty_variables(Arguments::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// An empty variable is as good as none: compose files and unit files set such ones.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|it| it.is_empty());
    let command = command.mut_args(|argument| match argument.get_env().is_some_and(is_empty) {
        true => argument.env(Resettable::Reset),
        false => argument,
    });
    command.mut_subcommands(without_empty_variables)
}

/// The file that an argument names: none for `-`, which is standard input.
fn file_of(argument: Option<&PathBuf>) -> Option<&Path> {
    argument
        .map(PathBuf::as_path)
        .filter(|file| *file != Path::new("-"))
}

/// Prints the problems of a configuration.
fn report(problems: &Problems) {
    for problem in &problems.0 {
        eprintln!("{}", problems::show(Severity::Error, problem));
    }
    let count = counted(problems.0.len(), "problem");
    eprintln!(
        "{}",
        style::error(&format!("the configuration has {count}"))
    );
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

impl Arguments {
    fn run(self) -> CommandResult {
        let quiet = match self.command {
            #[cfg(feature = "kafka")]
            Command::Demo(_) => true,
            Command::Tail(_)
            | Command::Replay(_)
            | Command::Check(_)
            | Command::Explain(_)
            | Command::Send(_)
            | Command::Provision(_)
            | Command::Test(_)
            | Command::Init(_)
            | Command::Providers(_) => true,
            _ => false,
        };
        let levels = self.logs.log.unwrap_or_else(|| match quiet {
            true => Levels::errors(),
            false => Levels::default(),
        });
        telemetry::start(self.logs.log_format, levels)?;
        match self.command {
            Command::Run(files) => run::run(&files),
            Command::Init(options) => init::run(&options),
            #[cfg(feature = "kafka")]
            Command::Demo(options) => demo::run(&options),
            Command::Check(options) => check::run(&options),
            Command::Explain(options) => explain::run(&options),
            Command::Test(options) => test::run(&options),
            Command::Send(options) => send::run(&options),
            Command::Providers(options) => providers::run(&options),
            Command::Tail(options) => tail::run(&options),
            Command::Provision(options) => provision::run(&options),
            Command::Replay(options) => replay::run(&options),
            Command::Schema(options) => schema::run(&options),
            Command::Completions(options) => completions::run(&options),
            Command::Manual(options) => manual::run(&options),
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error and its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}
