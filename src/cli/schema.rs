//! `hookbridge schema`

use clap::{Args, ValueEnum};

use super::{CommandResult, Completion, style};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Output format: JSON Schema for editors, or the tables of the reference
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Markdown,
}

pub(super) fn run(options: &Options) -> CommandResult {
    match options.format {
        Format::Json => {
            let schema = serde_json::to_string_pretty(&config::json_schema())?;
            style::println(schema)?;
        }
        Format::Markdown => {
            for (name, table) in config::reference() {
                style::println(format_args!("## `{name}`\n\n{}", table.to_markdown()))?;
            }
        }
    }
    Ok(Completion::Success)
}
