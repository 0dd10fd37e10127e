//! `/readyz`: whether the service can take events, and what is missing.

use super::Bridge;
use crate::brokers::Health;
use crate::config::ReadyWhen;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub is_ready: bool,
    /// In words for the operator. May be non-empty although the service is ready.
    pub missing: Vec<String>,
}

impl Bridge {
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut missing = Vec::new();
        let (mut up, mut is_durable) = (0, true);
        for id in &self.needed_brokers {
            let named = self.config.broker(*id);
            let name = &named.name;
            let reservations = self.reservations(*id);
            match self.broker(*id).health() {
                Health::Up { .. } if reservations.is_pending => {
                    missing.push(format!(
                        "broker {name}: its destinations have not been inspected yet"
                    ));
                    is_durable &= !named.require_durable;
                }
                Health::Up { missing: absent } => {
                    up += 1;
                    missing.extend(absent.iter().map(|what| format!("broker {name}: {what}")));
                    let unlisted = reservations.unusable.iter();
                    let unlisted =
                        unlisted.filter(|unusable| !are_named(&unusable.destination, &absent));
                    missing.extend(unlisted.map(|unusable| {
                        let why = unusable.assessment.why().unwrap_or_default();
                        format!("broker {name}: {}: {why}", unusable.destination)
                    }));
                }
                Health::Refusing { why, takes_others } => {
                    up += usize::from(takes_others);
                    missing.push(format!("broker {name}: {why}"));
                }
                Health::Down(why) => missing.push(format!("broker {name}: {why}")),
                Health::Starting => missing.push(format!("broker {name}: not reached yet")),
            }
            let is_usable = reservations.unusable.is_empty() || !named.require_durable;
            is_durable &= is_usable && reservations.undurable.is_empty();
            missing.extend(reservations.undurable.iter().map(|undurable| {
                let why = undurable.assessment.why().unwrap_or_default();
                format!(
                    "broker {name} (require_durable): {}: {why}",
                    undurable.destination
                )
            }));
        }
        // For the operator only: a silent sender does not justify sending its events elsewhere.
        missing.extend(self.silences_in_words());
        let is_draining = self.process.is_draining();
        if is_draining {
            missing.push("the service is shutting down".to_owned());
        }
        let is_reachable = match self.config.admin.ready_when {
            ReadyWhen::Any => up > 0 || self.needed_brokers.is_empty(),
            ReadyWhen::All => up == self.needed_brokers.len(),
        };
        Readiness {
            is_ready: is_reachable && is_durable && !is_draining,
            missing,
        }
    }
}

/// Whether these texts name all of the destinations, which are separated by commas.
fn are_named(destinations: &str, texts: &[String]) -> bool {
    let texts = || {
        texts
            .iter()
            .flat_map(|text| text.split([' ', ',', ';', ':']))
    };
    let mut names = destinations.split(", ");
    names.all(|name| texts().any(|word| word == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_not_taken_for_another_whose_name_contains_it() {
        let texts = [
            "topics a.xy, b do not exist".to_owned(),
            "no leader for topic c".to_owned(),
        ];
        for named in ["a.xy", "b", "c", "a.xy, c"] {
            assert!(are_named(named, &texts), "{named}");
        }
        for other in ["a.x", "a.xy, d", "b and 3 more"] {
            assert!(!are_named(other, &texts), "{other}");
        }
    }
}
