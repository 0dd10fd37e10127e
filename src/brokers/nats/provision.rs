//! `provision`: creates one stream with the subjects that no stream takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};

use super::durability::{Info, Inspector, RETRY_HORIZON, Unanswered};
use super::settings::{Acknowledgement, Settings};
use crate::brokers::error::{ProvisionError, RequestError};
use crate::brokers::kind::Kind;
use crate::brokers::provision::{Created, Creation, Item, Needed, Plan, Provision, State};

/// The stream's name where none is given.
const STREAM: &str = "HOOKBRIDGE";

/// Replicas of a new stream in a cluster.
const REPLICAS: usize = 3;

/// Longer than any provider retries.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(3600);
const _: () = assert!(DUPLICATE_WINDOW.as_secs() >= RETRY_HORIZON.as_secs());

/// A plan, and the connection that carries it out.
pub struct Provisioning {
    inspector: Option<Inspector>,
    /// The stream to create.
    stream: Option<Config>,
    pub(in crate::brokers) plan: Plan,
}

impl Provisioning {
    pub(in crate::brokers) async fn plan(
        settings: &Settings,
        wishes: &Provision,
        needed: &[Needed],
        timeout: Duration,
    ) -> Result<Self, ProvisionError> {
        if settings.acknowledgement == Acknowledgement::Core {
            let note = "ack = \"core\" stores nothing, so no stream is needed";
            let plan = Plan {
                items: Vec::new(),
                notes: vec![note.to_owned()],
            };
            return Ok(Self {
                inspector: None,
                stream: None,
                plan,
            });
        }
        within(timeout, async {
            let inspector = Inspector::connect(settings, timeout).await?;
            let (plan, stream) = inspector.plan(wishes, needed).await?;
            Ok(Self {
                inspector: Some(inspector),
                stream,
                plan,
            })
        })
        .await
    }

    pub(in crate::brokers) async fn apply(
        self,
        dry_run: bool,
        timeout: Duration,
    ) -> Result<Vec<Created>, ProvisionError> {
        let (Some(inspector), Some(stream), false) = (self.inspector, self.stream, dry_run) else {
            return Ok(Vec::new());
        };
        within(timeout, async {
            let result = match inspector.create(&stream).await {
                Ok(()) => Creation::Done,
                Err(why) => Creation::Failed { why },
            };
            // The result does not matter: everything sent has its answer.
            let _drained = inspector.session.client.drain().await;
            Ok(vec![Created {
                name: stream.name,
                result,
            }])
        })
        .await
    }
}

async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, ProvisionError>>,
) -> Result<T, ProvisionError> {
    let done = tokio::time::timeout(timeout, work).await;
    done.unwrap_or(Err(ProvisionError::TimedOut(timeout)))
}

impl Inspector {
    async fn plan(
        &self,
        wishes: &Provision,
        needed: &[Needed],
    ) -> Result<(Plan, Option<Config>), ProvisionError> {
        let (subjects, mut notes) = subjects(needed);
        let name = wishes.stream.as_deref().unwrap_or(STREAM);
        let mut streams: BTreeMap<String, Config> = BTreeMap::new();
        for subject in &subjects {
            let found = self.streams_on(&subject.pattern).await;
            for stream in found? {
                if !streams.contains_key(&stream)
                    && let Some(config) = self.find(&stream).await?
                {
                    streams.insert(stream, config);
                }
            }
        }
        let namesake = match streams.get(name) {
            Some(config) => Some(config.clone()),
            None => self.find(name).await?,
        };
        let Coverage {
            missing,
            taken,
            overlaps,
        } = Coverage::of(&subjects, &streams);
        notes.extend(overlaps);
        let is_clustered = self.session.client.server_info().cluster.is_some();
        let wanted = stream_of(wishes, name, missing, is_clustered);
        let mut items: Vec<Item> = streams
            .iter()
            .filter(|(stream, _)| taken.contains(*stream))
            .map(|(stream, config)| Item {
                kind: "stream",
                name: stream.clone(),
                state: State::Exists {
                    differences: differences(config, &wanted),
                },
            })
            .collect();
        if wanted.subjects.is_empty() {
            return Ok((Plan { items, notes }, None));
        }
        let lacking = wanted.subjects.join(", ");
        if let Some(config) = namesake {
            let all = config.subjects.iter().chain(&wanted.subjects);
            let all: Vec<&str> = all.map(String::as_str).collect();
            items.retain(|item| item.name != name);
            items.push(Item {
                kind: "stream",
                name: name.to_owned(),
                state: State::Blocked {
                    why: format!(
                        "it exists and does not take {lacking}, and existing streams are not changed; run `nats stream edit {name} --subjects '{}'`, or name another stream with provision = {{ stream = \"NAME\" }}",
                        all.join(",")
                    ),
                },
            });
            return Ok((Plan { items, notes }, None));
        }
        items.push(Item {
            kind: "stream",
            name: name.to_owned(),
            state: State::Create {
                settings: describe(&wanted),
            },
        });
        Ok((Plan { items, notes }, Some(wanted)))
    }

    /// The configuration of a stream, if it exists.
    async fn find(&self, stream: &str) -> Result<Option<Config>, ProvisionError> {
        let request = format!("STREAM.INFO.{stream}");
        match self.ask::<Info>(&request, &serde_json::Value::Null).await {
            Ok(info) => Ok(Some(info.config)),
            Err(Unanswered::Refused(ErrorCode::STREAM_NOT_FOUND, _)) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    async fn create(&self, stream: &Config) -> Result<(), String> {
        let request = format!("STREAM.CREATE.{}", stream.name);
        let config = serde_json::to_value(stream).map_err(|error| error.to_string())?;
        match self.ask::<Info>(&request, &config).await {
            Ok(_) => Ok(()),
            Err(Unanswered::Refused(code, why)) => Err(remedy(code, &why)),
            Err(why) => Err(ProvisionError::from(why).to_string()),
        }
    }
}

impl From<Unanswered> for ProvisionError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Disabled(why) | Unanswered::Refused(_, why) => RequestError(why).into(),
            Unanswered::Failed(why) => why.into(),
        }
    }
}

/// The reason why the stream was not created, and advice.
fn remedy(code: ErrorCode, why: &str) -> String {
    let advice = match code {
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED | ErrorCode::CLUSTER_NO_PEERS => {
            "write a smaller `replicas`, or add servers with JetStream"
        }
        ErrorCode::STREAM_SUBJECT_OVERLAP => {
            "another stream takes some of the subjects by now; run the command again"
        }
        ErrorCode::STREAM_NAME_EXIST => {
            "someone else has created it by now, with other settings; run the command again"
        }
        ErrorCode::STORAGE_RESOURCES_EXCEEDED => {
            "write a smaller `max_bytes` or fewer `replicas`, or raise the account's limits"
        }
        _ => return why.to_owned(),
    };
    format!("{why}; {advice}")
}

/// Subjects for a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subjects {
    /// A subject, or the literal beginning of a template and `>`.
    pattern: String,
    /// The subjects of the pattern that are known in advance.
    known: BTreeSet<String>,
}

/// The subjects that the configuration needs, none of which contains another; and notes about what no stream can be given.
fn subjects(needed: &[Needed]) -> (Vec<Subjects>, Vec<String>) {
    let mut patterns: BTreeSet<String> = BTreeSet::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut notes: Vec<String> = Vec::new();
    for needed in needed {
        known.extend(needed.known.iter().cloned());
        let mut note = needed.illegal_note(Kind::Nats);
        if let Some(open) = &needed.open {
            match open.leading.rsplit_once('.') {
                Some((tokens, _)) => {
                    patterns.insert(format!("{tokens}.>"));
                }
                // `>` alone would be every subject of the account.
                None => {
                    note = Some(format!(
                        "{}: cannot be known in advance: {} (it does not begin with a literal token); begin it with one, such as \"hooks.{}\", or list the subjects with `topics = [...]`",
                        needed.origin, open.template, open.template
                    ));
                }
            }
        }
        notes.extend(note.filter(|note| !notes.contains(note)));
    }
    let all: Vec<String> = patterns.into_iter().chain(known.iter().cloned()).collect();
    let is_within_other = |pattern: &String| {
        let mut others = all.iter().filter(|other| *other != pattern);
        others.any(|other| covers(other, pattern))
    };
    let widest: BTreeSet<&String> = all
        .iter()
        .filter(|pattern| !is_within_other(pattern))
        .collect();
    let subjects = widest.into_iter().map(|pattern| Subjects {
        pattern: pattern.clone(),
        known: known
            .iter()
            .filter(|subject| covers(pattern, subject))
            .cloned()
            .collect(),
    });
    (subjects.collect(), notes)
}

/// Whether a pattern takes everything that another one takes.
fn covers(pattern: &str, other: &str) -> bool {
    let (mut tokens, mut others) = (pattern.split('.'), other.split('.'));
    loop {
        match (tokens.next(), others.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(other)) if other != ">" => {}
            (Some(token), Some(other)) if token == other => {}
            _ => return false,
        }
    }
}

/// The subjects that existing streams accept.
struct Coverage {
    /// The subjects that no stream takes, for a new one.
    missing: Vec<String>,
    /// The streams that take others.
    taken: BTreeSet<String>,
    /// Streams that take a part of a pattern.
    overlaps: Vec<String>,
}

impl Coverage {
    fn of(subjects: &[Subjects], streams: &BTreeMap<String, Config>) -> Self {
        let owner = |subject: &str| {
            let takes =
                |config: &Config| config.subjects.iter().any(|taken| covers(taken, subject));
            streams
                .iter()
                .find(|(_, config)| takes(config))
                .map(|(name, _)| name.clone())
        };
        let mut coverage = Self {
            missing: Vec::new(),
            taken: BTreeSet::new(),
            overlaps: Vec::new(),
        };
        for Subjects { pattern, known } in subjects {
            if let Some(stream) = owner(pattern) {
                coverage.taken.insert(stream);
                continue;
            }
            let overlapping: Vec<String> = streams
                .iter()
                .flat_map(|(name, config)| config.subjects.iter().map(move |taken| (name, taken)))
                .filter(|(_, taken)| collide(taken, pattern))
                .map(|(name, taken)| format!("{name} ({taken})"))
                .collect();
            if overlapping.is_empty() {
                coverage.missing.push(pattern.clone());
                continue;
            }
            // JetStream refuses a stream with the whole pattern.
            for subject in known {
                match owner(subject) {
                    Some(stream) => {
                        coverage.taken.insert(stream);
                    }
                    None => coverage.missing.push(subject.clone()),
                }
            }
            coverage.overlaps.push(format!(
                "{pattern} overlaps with subjects of existing streams: {}; only the subjects known in advance get a stream, so add those of other event types as they come",
                overlapping.join(", ")
            ));
        }
        coverage
    }
}

/// Whether two patterns have a subject in common.
fn collide(one: &str, other: &str) -> bool {
    let (mut ones, mut others) = (one.split('.'), other.split('.'));
    loop {
        match (ones.next(), others.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(one), Some(other)) if one == other || one == "*" || other == "*" => {}
            _ => return false,
        }
    }
}

/// The stream to create.
fn stream_of(wishes: &Provision, name: &str, subjects: Vec<String>, is_clustered: bool) -> Config {
    let replicas = if is_clustered { REPLICAS } else { 1 };
    Config {
        name: name.to_owned(),
        subjects,
        storage: StorageType::File,
        num_replicas: wishes.replicas.unwrap_or(replicas),
        max_bytes: wishes
            .max_bytes
            .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        // A full stream refuses new events, which are then not answered 2xx, instead of dropping old ones.
        discard: DiscardPolicy::New,
        duplicate_window: wishes.duplicate_window.unwrap_or(DUPLICATE_WINDOW),
        ..Config::default()
    }
}

fn describe(stream: &Config) -> Vec<String> {
    vec![
        format!("subjects: {}", stream.subjects.join(", ")),
        format!("replicas: {}", stream.num_replicas),
        "storage: file".to_owned(),
        format!("max_bytes: {}", size(stream.max_bytes)),
        "discard: new".to_owned(),
        format!(
            "duplicate_window: {}",
            humantime::format_duration(stream.duplicate_window)
        ),
    ]
}

fn differences(has: &Config, wanted: &Config) -> Vec<String> {
    let mut differences = Vec::new();
    if has.num_replicas != wanted.num_replicas {
        differences.push(format!(
            "replicas is {}, wanted {}",
            has.num_replicas, wanted.num_replicas
        ));
    }
    // 0 and -1 are both no limit.
    if wanted.max_bytes > 0 && has.max_bytes != wanted.max_bytes {
        differences.push(format!(
            "max_bytes is {}, wanted {}",
            size(has.max_bytes),
            size(wanted.max_bytes)
        ));
    }
    if has.duplicate_window != wanted.duplicate_window {
        differences.push(format!(
            "duplicate_window is {}, wanted {}",
            humantime::format_duration(has.duplicate_window),
            humantime::format_duration(wanted.duplicate_window)
        ));
    }
    differences
}

fn size(bytes: i64) -> String {
    match u64::try_from(bytes) {
        Ok(bytes) if bytes > 0 => bytesize::ByteSize(bytes).display().iec().to_string(),
        _ => "no limit".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::provision::Open;

    fn needed(known: &[&str], open: Option<(&str, &str)>) -> Needed {
        Needed {
            origin: "route 1".to_owned(),
            known: known.iter().map(|name| (*name).to_owned()).collect(),
            illegal: Vec::new(),
            open: open.map(|(template, leading)| Open {
                template: template.to_owned(),
                leading: leading.to_owned(),
                reads_payload: false,
            }),
        }
    }

    fn patterns(needed: &[Needed]) -> (Vec<String>, usize) {
        let (subjects, notes) = subjects(needed);
        let patterns = subjects.into_iter().map(|subjects| subjects.pattern);
        (patterns.collect(), notes.len())
    }

    fn streams(all: &[(&str, &[&str])]) -> BTreeMap<String, Config> {
        let stream = |(name, subjects): &(&str, &[&str])| {
            let config = Config {
                subjects: subjects.iter().map(|text| (*text).to_owned()).collect(),
                ..Config::default()
            };
            ((*name).to_owned(), config)
        };
        all.iter().map(stream).collect()
    }

    #[test]
    fn a_template_becomes_its_literal_tokens_and_a_wildcard() {
        for (needs, expected, notes) in [
            (vec![needed(&["a.b"], None)], vec!["a.b"], 0),
            (
                vec![needed(&["synq.ping"], Some(("synq.{type}", "synq.")))],
                vec!["synq.>"],
                0,
            ),
            // A token that is only partly literal cannot be a wildcard.
            (
                vec![needed(&["a.b-ping"], Some(("a.b-{type}", "a.b-")))],
                vec!["a.>"],
                0,
            ),
            (
                vec![
                    needed(&["a.x", "a.b.y"], Some(("a.{type}", "a."))),
                    needed(&["a.b.z"], Some(("a.b.{type}", "a.b."))),
                    needed(&["dead"], None),
                ],
                vec!["a.>", "dead"],
                0,
            ),
            (
                vec![needed(&["ping"], Some(("{type}", "")))],
                vec!["ping"],
                1,
            ),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(patterns(&needs), (expected, notes), "{needs:?}");
        }
    }

    #[test]
    fn wildcards_cover_and_collide_as_in_nats() {
        for (pattern, other, is_covered, is_common) in [
            ("a.b", "a.b", true, true),
            ("a.>", "a.b.c", true, true),
            ("a.>", "a", false, false),
            ("a.*", "a.b", true, true),
            ("a.*", "a.>", false, true),
            ("a.>", "a.*", true, true),
            (">", "a.>", true, true),
            ("a.b", "a.>", false, true),
            ("*.b", "a.*", false, true),
            ("a.b", "a.c", false, false),
            ("a.b.c", "a.b", false, false),
        ] {
            assert_eq!(covers(pattern, other), is_covered, "{pattern} {other}");
            assert_eq!(collide(pattern, other), is_common, "{pattern} {other}");
        }
    }

    #[test]
    fn a_new_stream_gets_what_no_other_takes() {
        let (subjects, _) = subjects(&[
            needed(&["a.x", "a.y"], Some(("a.{type}", "a."))),
            needed(&["dead"], None),
        ]);
        let of = |all: &[(&str, &[&str])]| {
            let coverage = Coverage::of(&subjects, &streams(all));
            (
                coverage.missing.join(" "),
                coverage.taken.into_iter().collect::<Vec<_>>().join(" "),
                coverage.overlaps.len(),
            )
        };
        let expect = |missing: &str, taken: &str, overlaps: usize| {
            (missing.to_owned(), taken.to_owned(), overlaps)
        };
        assert_eq!(of(&[]), expect("a.> dead", "", 0));
        assert_eq!(of(&[("S", &["a.>"])]), expect("dead", "S", 0));
        assert_eq!(of(&[("S", &[">"])]), expect("", "S", 0));
        assert_eq!(of(&[("S", &["a.x"])]), expect("a.y dead", "S", 1));
        assert_eq!(
            of(&[("S", &["a.x", "dead"]), ("T", &["a.y"])]),
            expect("", "S T", 1)
        );
    }
}
