//! Environment variables that look like settings but are not read, such as `HOOKBRIDGE_HTTP_LISTEN` with one
//! underscore.

use super::origin::{PREFIX, SEPARATOR};
use crate::table::Reading;

/// The prefix of the bridge's variables.
const FAMILY: &str = "HOOKBRIDGE_";

/// Variables that the command line reads, and the one that Cargo sets for `cargo run` (`build.rs`).
const READ_ELSEWHERE: [&str; 5] = [
    "HOOKBRIDGE_COMMIT",
    "HOOKBRIDGE_CONFIG",
    "HOOKBRIDGE_LOG",
    "HOOKBRIDGE_LOG_FORMAT",
    "HOOKBRIDGE_SEND_SECRET",
];

pub(super) fn warn_of_strays(reading: &Reading) {
    let Some(known_keys) = &reading.known_keys else {
        return;
    };
    let read = reading.variables.borrow();
    let strays = reading.environment.iter().filter(|(name, value)| {
        name.starts_with(FAMILY)
            && !name.starts_with(PREFIX)
            && !READ_ELSEWHERE.contains(&name.as_str())
            && !read.contains(*name)
            && !is_service_link(name, value)
    });
    let known_keys = known_keys.borrow();
    let settings: Vec<String> = known_keys
        .iter()
        .map(|path| format!("{PREFIX}{}", path.to_uppercase().replace('.', SEPARATOR)))
        .collect();
    for (name, _) in strays {
        let meant = settings
            .iter()
            .find(|setting| setting.replace(SEPARATOR, "_") == *name);
        let help = match meant {
            Some(meant) => format!("; did you mean {meant}?"),
            None => {
                let known = settings.iter().map(String::as_str).chain(READ_ELSEWHERE);
                nearest(name, known).map_or_else(
                    || format!("; settings begin with {PREFIX}, as {PREFIX}HTTP__LISTEN does"),
                    |nearest| format!("; did you mean {nearest}?"),
                )
            }
        };
        reading.warn(
            "",
            format!("nothing reads the environment variable {name}{help}"),
        );
    }
}

/// The known name that differs by no more than a typo.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let own = |name: &str| {
        let own = name.strip_prefix(FAMILY).unwrap_or(name);
        own.trim_start_matches('_').replace(SEPARATOR, "_")
    };
    let own_name = own(name);
    let distances = known.map(|known| (strsim::damerau_levenshtein(&own_name, &own(known)), known));
    let (distance, nearest) = distances.min()?;
    (distance <= (own_name.len() / 4).min(3)).then_some(nearest)
}

/// Variables that Kubernetes and Docker set in every container for a service called `hookbridge` or `hookbridge-…`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    is_url
        || name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name
            .split_once("_PORT_")
            .is_some_and(|(_, port)| port.starts_with(|first: char| first.is_ascii_digit()))
}
