//! The keys of `[sources.NAME]` that concern requests instead of events: who may send them, how many, and how they are
//! answered.

use std::net::IpAddr;
use std::num::NonZeroU32;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use ipnet::{IpNet, Ipv4Net};
use rustls_pki_types::DnsName;

use crate::table::Section;

/// `rate_limit`: the rate of verified requests that a source accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per second, on average.
    pub per_second: NonZeroU32,
    /// Requests that may come at the same time after a pause.
    pub burst: NonZeroU32,
}

pub(super) fn read_rate_limit(source: &mut Section<'_>) -> Option<RateLimit> {
    let mut table = source.section("rate_limit")?;
    if !table.has("per_second") && !table.is_misspelt("per_second") {
        table.problem("lacks `per_second`; write for example `rate_limit = { per_second = 200, burst = 400 }`");
    }
    let mut count = |key| {
        let count = table.optional_count(key)?;
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

/// Reads networks; a single address is a network of one. `every` describes the effect of a network that has every
/// address.
pub(super) fn read_networks(
    section: &mut Section<'_>,
    key: &'static str,
    every: &str,
) -> Vec<IpNet> {
    let texts = section.texts(key).unwrap_or_default();
    let mut networks = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let key = format!("{key}[{index}]");
        let shown = section.quote(&key, text);
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let Some(network) = text.parse::<IpNet>().ok().or_else(address) else {
            section.problem_at(
                &key,
                format!("{shown} is not a network; write for example \"192.0.2.0/24\", \"192.0.2.7\" or \"2001:db8::/32\""),
            );
            continue;
        };
        let network = canonical(network);
        if network.prefix_len() == 0 {
            section.problem_at(&key, format!("{shown} is every address, {every}"));
            continue;
        }
        if network.trunc() != network {
            section.warn_at(
                &key,
                format!(
                    "{shown} has bits after its prefix, and is read as \"{}\"; write that, or the address alone",
                    network.trunc()
                ),
            );
        }
        networks.push(network.trunc());
    }
    networks
}

/// A network in the form used for comparisons: an IPv4 address written as IPv6 becomes IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(wide) = network else {
        return network;
    };
    let inner = wide
        .addr()
        .to_ipv4_mapped()
        .zip(wide.prefix_len().checked_sub(96));
    let inner = inner.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    inner.map_or(network, IpNet::V4)
}

pub(super) fn read_allow_from(source: &mut Section<'_>, trusted_proxies: &[IpNet]) -> Vec<IpNet> {
    let key = "allow_from";
    let is_empty = source.is_empty_list(key);
    let networks = read_networks(
        source,
        key,
        "so that it keeps nobody out; list the addresses that the provider sends from, or leave `allow_from` out",
    );
    if is_empty {
        source.problem_at(key, "an empty list lets nobody in; list the addresses that the provider sends from, or leave `allow_from` out");
    }
    for network in &networks {
        let proxies = trusted_proxies
            .iter()
            .find(|proxies| proxies.contains(network));
        if let Some(proxies) = proxies {
            source.problem_at(
                key,
                format!("{network} is within {proxies} of `http.trusted_proxies`, and a proxy's address never counts as a sender's; list the addresses that the provider sends from"),
            );
        }
    }
    networks
}

/// Reads names as they occur in certificates, in lower case.
pub(super) fn read_client_names(source: &mut Section<'_>, has_client_ca: bool) -> Vec<String> {
    let key = "client_names";
    let is_empty = source.is_empty_list(key);
    let Some(names) = source.texts(key) else {
        return Vec::new();
    };
    if is_empty {
        source.problem_at(key, "an empty list lets nobody in; list the names that the sender's certificate may have, or leave `client_names` out");
    }
    if !has_client_ca {
        source.problem_at(key, "the listener asks senders for no certificate; set `tls = { cert = \"…\", key = \"…\", client_ca = \"…\" }` under [http], or leave `client_names` out");
    }
    for (index, name) in names.iter().enumerate() {
        let host = name.strip_prefix("*.").unwrap_or(name);
        if host.parse::<IpAddr>().is_ok() || DnsName::try_from(host).is_err() {
            let key = format!("{key}[{index}]");
            let shown = source.quote(&key, name);
            source.problem_at(&key, format!("{shown} is not a DNS name as a certificate has them in its subjectAltName; write for example \"hooks.example.com\""));
        }
    }
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}

/// `success_body`: the body of every success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedBody {
    pub bytes: Bytes,
    /// Its media type, unless it is empty.
    pub content_type: Option<HeaderValue>,
}

/// The largest `success_body`, in bytes.
const MAX_SUCCESS_BODY: usize = 64 * 1024;

pub(super) fn read_success_body(source: &mut Section<'_>, status: StatusCode) -> Option<FixedBody> {
    let text = source.text("success_body");
    let content_type = source.text("success_content_type");
    let content_type = content_type.and_then(|text| {
        let is_plain = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        let value = HeaderValue::from_str(&text).ok();
        let value = value.filter(|_| is_plain && text.split_once('/').is_some_and(is_media_type));
        if value.is_none() {
            let shown = source.quote("success_content_type", &text);
            source.problem_at(
                "success_content_type",
                format!("{shown} is not a media type; write for example \"text/xml\" or \"text/plain; charset=utf-8\""),
            );
        }
        value
    });
    let Some(text) = text else {
        if content_type.is_some() {
            source.problem_at(
                "success_content_type",
                "describes `success_body`, which is missing; set `success_body` too, or remove it",
            );
        }
        return None;
    };
    if text.len() > MAX_SUCCESS_BODY {
        source.problem_at(
            "success_body",
            "is larger than 64 KiB; senders expect a few bytes",
        );
    }
    let takes_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    if takes_none && !text.is_empty() {
        let status = status.as_u16();
        source.problem_at("success_body", format!("an answer with the status {status} has no body; set another `success_status`, or remove it"));
    }
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    Some(FixedBody {
        content_type: (!text.is_empty()).then(|| content_type.unwrap_or(plain)),
        bytes: Bytes::from(text),
    })
}

fn is_media_type((kind, rest): (&str, &str)) -> bool {
    let is_token = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !part.is_empty() && part.bytes().all(is_plain)
    };
    let subtype = rest.split(';').next().unwrap_or_default();
    is_token(kind) && is_token(subtype.trim_end())
}

#[cfg(test)]
mod tests {
    use crate::brokers::Settings;
    use crate::config::{Config, ConfigFile, Origin, Source};
    use crate::table::Problems;

    /// Loads a source with these keys, and these keys of `[http]`.
    fn load(http: &str, keys: &str) -> Result<Config, Problems> {
        let text = format!(
            "[http]\n{http}\n[brokers.main]\n{}\
             [[routes]]\ntopic = \"hooks\"\n[sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n{keys}\n",
            Settings::OUT_OF_REACH
        );
        let files = vec![ConfigFile::Text {
            name: "a.toml".to_owned(),
            text,
        }];
        let environment = Vec::new();
        Origin { files, environment }.load()
    }

    fn with_source<T>(http: &str, keys: &str, check: impl FnOnce(&Source) -> T) -> T {
        let config = load(http, keys).unwrap_or_else(|problems| panic!("{keys}: {problems}"));
        check(&config.sources[0])
    }

    /// Each case must be refused with exactly one problem, which contains the given text.
    fn expect_refused(cases: &[(&str, &str, &str)]) {
        for (http, keys, what) in cases {
            let problems = load(http, keys).expect_err(keys).to_string();
            assert_eq!(problems.lines().count(), 1, "{keys}: {problems}");
            assert!(problems.contains(what), "{keys}: {problems}");
        }
    }

    #[test]
    fn networks_are_compared_in_canonical_form() {
        let networks = |keys: &str| {
            with_source("", keys, |source| {
                let networks: Vec<_> = source.allow_from.iter().map(ToString::to_string).collect();
                networks.join(" ")
            })
        };
        assert_eq!(networks(""), "");
        assert_eq!(
            networks("allow_from = [\"192.0.2.0/24\", \"198.51.100.7\", \"2001:db8::/32\"]"),
            "192.0.2.0/24 198.51.100.7/32 2001:db8::/32"
        );
        assert_eq!(
            networks("allow_from = [\"::ffff:192.0.2.0/120\", \"::ffff:198.51.100.7\"]"),
            "192.0.2.0/24 198.51.100.7/32"
        );
        let proxies = "trusted_proxies = [\"10.0.0.0/8\"]";
        expect_refused(&[
            ("", "allow_from = []", "an empty list lets nobody in"),
            (
                "",
                "allow_from = [\"hooks.example.com\"]",
                "is not a network",
            ),
            ("", "allow_from = [\"192.0.2.0/33\"]", "is not a network"),
            ("", "allow_from = [\"0.0.0.0/0\"]", "keeps nobody out"),
            (
                "",
                "allow_from = [\"::ffff:0.0.0.0/96\"]",
                "keeps nobody out",
            ),
            (
                "trusted_proxies = [\"::ffff:0:0/96\"]",
                "",
                "is every address",
            ),
            (
                proxies,
                "allow_from = [\"10.1.0.0/16\"]",
                "10.1.0.0/16 is within 10.0.0.0/8 of `http.trusted_proxies`",
            ),
        ]);
        let warnings = |keys: &str| {
            let warnings = load("", keys).unwrap().warnings;
            warnings.iter().map(ToString::to_string).collect::<String>()
        };
        assert!(
            warnings("allow_from = [\"192.0.2.7/24\"]").contains("is read as \"192.0.2.0/24\"")
        );
        let auth =
            "provider = \"generic\"\nauth = \"none\"\nevent = { id = \"{uuid}\", type = \"x\" }\n";
        let event = "provider = \"generic\"\nauth = \"none\"\nallow_from = [\"192.0.2.0/24\"]\nevent = { id = \"{uuid}\", type = \"x\" }\n";
        assert!(
            warnings(auth).contains("anyone who can reach the path"),
            "{}",
            warnings(auth)
        );
        assert!(
            warnings(event).contains("only the address identifies the sender"),
            "{}",
            warnings(event)
        );
    }

    #[test]
    fn client_names_need_a_listener_that_requires_certificates() {
        let tls = "tls = { cert = \"src/config/fixtures/certificate.pem\", key = \"src/config/fixtures/key.pem\", client_ca = \"src/config/fixtures/certificate.pem\" }";
        let plain = tls.replace(", client_ca = \"src/config/fixtures/certificate.pem\"", "");
        let keys = "client_names = [\"Hooks.Example.com\", \"*.example.net\"]";
        with_source(tls, keys, |source| {
            assert_eq!(source.client_names, ["hooks.example.com", "*.example.net"]);
        });
        expect_refused(&[
            ("", keys, "asks senders for no certificate; set `tls"),
            (&plain, keys, "asks senders for no certificate; set `tls"),
            (tls, "client_names = []", "an empty list lets nobody in"),
            (tls, "client_names = [\"192.0.2.7\"]", "is not a DNS name"),
            (tls, "client_names = [\"CN=hooks\"]", "is not a DNS name"),
            (
                tls,
                "client_names = [\"a.*.example.com\"]",
                "is not a DNS name",
            ),
        ]);
        let keys = "provider = \"generic\"\nauth = \"none\"\nclient_names = [\"hooks.example.com\"]\nevent = { id = \"{uuid}\", type = \"x\" }\n";
        let warnings = load(tls, keys).unwrap().warnings;
        assert!(
            !warnings
                .iter()
                .any(|warning| warning.to_string().contains("auth")),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_fixed_answer_has_a_type_unless_it_is_empty() {
        let fixed = |keys: &str| {
            with_source("", keys, |source| {
                let fixed = source.success_body.as_ref()?;
                let content_type = fixed.content_type.as_ref();
                let content_type = content_type.map(|value| value.to_str().unwrap().to_owned());
                Some((
                    String::from_utf8(fixed.bytes.to_vec()).unwrap(),
                    content_type,
                ))
            })
        };
        let some =
            |body: &str, content_type: &str| Some((body.to_owned(), Some(content_type.to_owned())));
        assert_eq!(fixed(""), None);
        assert_eq!(fixed("success_body = \"\""), Some((String::new(), None)));
        assert_eq!(
            fixed("success_body = \"ok\""),
            some("ok", "text/plain; charset=utf-8")
        );
        assert_eq!(
            fixed("success_body = \"<Response/>\"\nsuccess_content_type = \"text/xml\""),
            some("<Response/>", "text/xml")
        );
        let long = format!("success_body = \"{}\"", "x".repeat(65_537));
        expect_refused(&[
            (
                "",
                "success_content_type = \"text/xml\"",
                "which is missing",
            ),
            (
                "",
                "success_body = \"ok\"\nsuccess_content_type = \"xml\"",
                "is not a media type",
            ),
            (
                "",
                "success_body = \"ok\"\nsuccess_content_type = \"text/x\\r\\nx: y\"",
                "is not a media type",
            ),
            (
                "",
                "success_body = \"ok\"\nsuccess_status = 204",
                "the status 204 has no body",
            ),
            ("", &long, "is larger than 64 KiB"),
        ]);
    }

    #[test]
    fn a_schema_by_type_must_be_usable() {
        let folder =
            std::env::temp_dir().join(format!("hookbridge-schemas-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).unwrap();
            file.display().to_string()
        };
        let good = file("good.json", "{\"required\":[\"x\"]}");
        let remote = file("remote.json", "{\"$ref\":\"https://example.com/x.json\"}");
        let near = file("near.json", "{\"$ref\":\"good.json\"}");
        let schemas = |table: &str| format!("schemas = {{ {table} }}");
        let applies = |source: &Source, event_type: &str| {
            let typed = source
                .schemas
                .iter()
                .filter(|typed| typed.is_for(event_type));
            typed.count()
        };
        let both = schemas(&format!(
            "\"issue_*\" = \"{good}\", \"ping\" = \"{good}\", \"*\" = \"{good}\""
        ));
        with_source("", &both, |source| {
            assert!(source.schema.is_some(), "the preset's holds as well");
            let counts = ["issue_created", "ping", "incident_open"].map(|one| applies(source, one));
            assert_eq!(counts, [2, 2, 1]);
        });
        let generic = |event_type: &str, body: &str, table: &str| {
            let schemas = schemas(table);
            format!(
                "provider = \"generic\"\nauth = \"bearer\"\n{schemas}\nevent = {{ id = \"{{uuid}}\", type = \"{event_type}\", body = \"{body}\" }}"
            )
        };
        let order = format!("\"order.*\" = \"{good}\"");
        with_source("", &generic("order.created", "json", &order), |source| {
            assert_eq!(source.schemas.len(), 1);
        });
        expect_refused(&[
            (
                "",
                &schemas("\"*\" = \"/nowhere.json\""),
                "schemas.*: /nowhere.json can't be read",
            ),
            (
                "",
                &schemas(&format!("\"[\" = \"{good}\"")),
                "\"[\" is not a valid glob",
            ),
            (
                "",
                &schemas(&format!("\"\" = \"{good}\"")),
                "matches no type",
            ),
            (
                "",
                &schemas(&format!("\"*\" = \"{remote}\"")),
                "the bridge fetches no schema and reads no other file",
            ),
            (
                "",
                &schemas(&format!("\"*\" = \"{near}\"")),
                "the bridge fetches no schema and reads no other file",
            ),
            (
                "",
                &generic("invoice.paid", "json", &order),
                "no event of this source has a type like \"order.*\": each has \"invoice.paid\"",
            ),
            (
                "",
                &generic("order.created", "raw", &order),
                "to which no schema applies",
            ),
        ]);
        let warnings = load("", &schemas(&format!("\"isue_*\" = \"{good}\"")))
            .unwrap()
            .warnings;
        let shown = warnings[0].to_string();
        assert!(shown.contains("is not known to send \"isue_*\""), "{shown}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn values_that_a_provider_does_not_work_with_cause_warnings() {
        let warnings = |http: &str, keys: &str| {
            let config = load(http, keys).unwrap_or_else(|problems| panic!("{keys}: {problems}"));
            let shown = config.warnings.iter().map(ToString::to_string);
            shown.collect::<Vec<_>>().join("\n")
        };
        for (http, keys, what) in [
            ("", "provider = \"github\"", ""),
            (
                "publish_timeout = \"30s\"\nmax_body = \"64KiB\"",
                "provider = \"github\"",
                "",
            ),
            (
                "",
                "provider = \"github\"\npublish_timeout = \"10s\"",
                "GitHub waits 10s for an answer",
            ),
            (
                "",
                "provider = \"github\"\nmax_body = \"1MiB\"",
                "GitHub sends bodies of up to 25MB",
            ),
            (
                "",
                "provider = \"github\"\nrate_limit = { per_second = 9 }",
                "GitHub does not resend",
            ),
            (
                "max_body = \"64KiB\"",
                "provider = \"pagerduty\"",
                "PagerDuty sends bodies of up to 256KB",
            ),
            (
                "",
                "provider = \"linear\"\nsuccess_status = 202",
                "Linear treats 202 as a failure and sends the event again; write 200",
            ),
            ("", "provider = \"okta\"\nsuccess_status = 204", ""),
        ] {
            let shown = warnings(http, keys);
            assert_eq!(shown.is_empty(), what.is_empty(), "{keys}: {shown}");
            assert!(
                shown.lines().count() <= 1 && shown.contains(what),
                "{keys}: {shown}"
            );
        }
        with_source("", "provider = \"sentry\"", |source| {
            assert_eq!(source.publish_timeout.as_millis(), 800);
        });
    }

    #[test]
    fn a_rate_limit_has_requests_per_second_and_a_burst() {
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
