//! The keys of `[sources.NAME]` that are about requests and not about events: who may send them, how many, and how they
//! are answered.

use std::num::NonZeroU32;

use super::section::Section;

/// `rate_limit`: how many verified requests a source takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second, on average.
    pub per_second: NonZeroU32,
    /// Requests that may come at the same time after a pause.
    pub burst: NonZeroU32,
}

pub(super) fn read_rate_limit(source: &mut Section<'_>) -> Option<RateLimit> {
    let mut table = source.section("rate_limit")?;
    if !table.has("per_second") {
        table.problem("lacks `per_second`; write for example `rate_limit = { per_second = 200, burst = 400 }`");
    }
    let mut count = |key| {
        let count = table.count(key, 1, 1_000_000)?;
        u32::try_from(count).ok().and_then(NonZeroU32::new)
    };
    let (per_second, burst) = (count("per_second"), count("burst"));
    table.finish();
    let per_second = per_second?;
    Some(RateLimit {
        per_second,
        burst: burst.unwrap_or(per_second),
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigFile, Origin, Problems, Source};

    /// Loads a source with these keys; `http` is the keys of `[http]`.
    fn load(http: &str, keys: &str) -> Result<Config, Problems> {
        let text = format!(
            "[http]\n{http}\n[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k:9092\"\n\
             [[routes]]\ntopic = \"hooks\"\n[sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n{keys}\n"
        );
        let files = vec![ConfigFile::Text {
            name: "a.toml".to_owned(),
            text,
        }];
        let environment = Vec::new();
        Origin { files, environment }.load()
    }

    fn with_source<T>(http: &str, keys: &str, look: impl FnOnce(&Source) -> T) -> T {
        let config = load(http, keys).unwrap_or_else(|problems| panic!("{keys}: {problems}"));
        look(&config.sources[0])
    }

    /// Each of these is refused with exactly one problem, which says this.
    fn expect_refused(cases: &[(&str, &str, &str)]) {
        for (http, keys, what) in cases {
            let problems = load(http, keys).expect_err(keys).to_string();
            assert_eq!(problems.lines().count(), 1, "{keys}: {problems}");
            assert!(problems.contains(what), "{keys}: {problems}");
        }
    }

    #[test]
    fn a_rate_limit_is_requests_a_second_and_a_burst() {
        let limit = |keys: &str| {
            with_source("", keys, |source| {
                let limit = source.rate_limit?;
                Some((limit.per_second.get(), limit.burst.get()))
            })
        };
        assert_eq!(limit(""), None);
        assert_eq!(limit("rate_limit = { per_second = 200 }"), Some((200, 200)));
        assert_eq!(
            limit("rate_limit = { per_second = 2, burst = 5 }"),
            Some((2, 5))
        );
        expect_refused(&[
            ("", "rate_limit = 200", "is a table"),
            ("", "rate_limit = { burst = 5 }", "lacks `per_second`"),
            (
                "",
                "rate_limit = { per_second = 0 }",
                "write one from 1 to 1000000",
            ),
            (
                "",
                "rate_limit = { per_second = 1.5 }",
                "is not a whole number",
            ),
            (
                "",
                "rate_limit = { per_second = 1, burst = 0 }",
                "write one from 1 to 1000000",
            ),
            (
                "",
                "rate_limit = { per_second = 1, bursts = 2 }",
                "did you mean \"burst\"?",
            ),
        ]);
    }
}
