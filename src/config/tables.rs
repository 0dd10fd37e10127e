//! The keys of the configuration, as far as this folder reads them.

use super::model::ReadyWhen;
use crate::brokers;
use crate::event::DedupBy;
use crate::providers::tables::{AUTHENTICATION, EVENTS, OF_HOOKS};
use crate::table::key::{
    ADDRESS, FILE, GLOB, HEADER, HOST, Key, MEDIA_TYPE, NAME, NETWORK, TEMPLATE, TEXT, Table, Type,
    URL, URL_PATH, words,
};

pub(super) const READY_WHEN: [(&str, ReadyWhen); 2] =
    [("any", ReadyWhen::Any), ("all", ReadyWhen::All)];

pub(super) const DEDUP_BY: [(&str, DedupBy); 3] = [
    ("id", DedupBy::Id),
    ("id+body", DedupBy::IdAndBody),
    ("never", DedupBy::Never),
];

/// Whether an action ignores events.
pub(super) const ACTIONS: [(&str, bool); 2] = [("publish", false), ("ignore", true)];

const CONNECTION_TIMEOUT: Type = Type::Duration {
    least: "100ms",
    most: "1h",
};
const BODY: Type = Type::Size {
    least: "1B",
    most: Some("256MiB"),
};
const PUBLISH_TIMEOUT: Type = Type::Duration {
    least: "500ms",
    most: "5m",
};
const MILLION: Type = Type::Count {
    least: 1,
    most: 1_000_000,
};
const POLICY: Type = Type::Any(&[Type::Words(&["reject", "ignore"]), Type::Table(&OTHERWISE)]);

const LISTEN: &[&str] = &["port", "host", "bind", "address", "addr", "ip"];

pub(crate) static ROOT: Table = Table::new(&[&[
    Key::new("http", Type::Table(&HTTP)).about("The public listener."),
    Key::new("admin", Type::Table(&ADMIN)).about("`/metrics`, `/healthz` and `/readyz`."),
    Key::new("brokers", Type::Map(&Type::Table(&brokers::TABLE)))
        .about("The brokers, by name.")
        .instead_of(&["kafka", "nats", "clusters"]),
    Key::new("sources", Type::Map(&Type::Table(&SOURCE)))
        .about("The webhooks, by name.")
        .instead_of(&["webhooks", "hooks", "providers", "endpoints"]),
    Key::new("routes", Type::Tables(&ROUTE))
        .about("Where events go; the first that matches wins.")
        .instead_of(&["rules", "routing"]),
]])
.notes(&[
    (
        &["server", "listener", "public", "tls", "listen", "port", "host"],
        "the public listener is [http]; write `[http]` with `listen = \"0.0.0.0:8080\"`",
    ),
    (
        &["metrics", "management", "health", "monitoring"],
        "/metrics and /healthz are at [admin]; write `[admin]` with `listen = \"127.0.0.1:9090\"`",
    ),
    (
        &["log", "logs", "logging", "log_level", "level"],
        "the level of the log is the environment variable HOOKBRIDGE_LOG, for example HOOKBRIDGE_LOG=debug; remove it",
    ),
    (
        &["tracing", "traces", "telemetry", "otel", "opentelemetry", "otlp"],
        "traces are set by environment variables such as OTEL_EXPORTER_OTLP_ENDPOINT; remove it",
    ),
    (
        &["options"],
        "options belong to one broker; write `[brokers.NAME.options]`",
    ),
]);

pub(crate) static HTTP: Table = Table::new(&[&[
    Key::new("listen", Type::Text(&ADDRESS))
        .default("0.0.0.0:8080")
        .instead_of(LISTEN)
        .about("a change needs a restart"),
    Key::new("http2", Type::Flag)
        .default("false")
        .about("also HTTP/2 on the same port: by ALPN with TLS, with prior knowledge without"),
    Key::new("tls", Type::TableOrTables(&TLS))
        .depends("none: plain HTTP")
        .about("see [TLS](#tls)"),
    Key::new("max_body", BODY)
        .default("1MiB")
        .about("the largest body of a request"),
    Key::new("header_timeout", CONNECTION_TIMEOUT)
        .default("5s")
        .about("from the first byte of a request head to its last, and for a connection's first byte"),
    Key::new("body_timeout", CONNECTION_TIMEOUT)
        .default("10s")
        .about("for the body"),
    Key::new("idle_timeout", CONNECTION_TIMEOUT)
        .default("75s")
        .about("between requests on a connection; longer than your load balancer's own"),
    Key::new("publish_timeout", PUBLISH_TIMEOUT)
        .default("8s")
        .about("how long a request waits for the broker; shorter than the sender's own time-out"),
    Key::new("max_in_flight", MILLION)
        .default("10000")
        .about("verified events being published; beyond it 503 `overloaded`"),
    Key::new(
        "max_in_flight_bytes",
        Type::Size {
            least: "1KiB",
            most: None,
        },
    )
    .default("256MiB")
    .about("bytes of their bodies; at least `max_body`"),
    Key::new("max_connections", MILLION)
        .default("20000")
        .about("beyond it, a connection without a verified event makes room"),
    Key::new(
        "max_connection_age",
        Type::Duration {
            least: "1s",
            most: "24h",
        },
    )
    .default("5m")
    .about("then an answer says `Connection: close`, so that load balancers spread; ±10 %"),
    Key::new("trusted_proxies", Type::List(&Type::Text(&NETWORK))).about(
        "proxies that may send `X-Forwarded-For` or `Forwarded`; every address (`0.0.0.0/0`, `::/0`) is refused",
    ),
    Key::new("access_log", Type::Flag)
        .default("false")
        .about("a line for each event and request in the [log](operations.md#logs)"),
    Key::new(
        "drain_delay",
        Type::Duration {
            least: "0s",
            most: "1h",
        },
    )
    .default("0s")
    .about("less than `shutdown_timeout`; `/readyz` fails this long before the listener closes"),
    Key::new(
        "shutdown_timeout",
        Type::Duration {
            least: "1s",
            most: "1h",
        },
    )
    .default("25s")
    .about("maximum duration of a shutdown"),
]]);

pub(crate) static TLS: Table = Table::new(&[&[
    Key::new("cert", Type::Text(&FILE))
        .required("\"/etc/hookbridge/cert.pem\"")
        .instead_of(&[
            "certificate",
            "cert_file",
            "certificate_file",
            "crt",
            "chain",
        ])
        .about("a PEM file with the certificate and then its intermediates"),
    Key::new("key", Type::Text(&FILE))
        .required("\"/etc/hookbridge/key.pem\"")
        .instead_of(&["private_key", "key_file", "private_key_file"])
        .about("a PEM file with the private key, not encrypted"),
    Key::new("client_ca", Type::Text(&FILE)).about(
        "a PEM file with authorities: only senders with a certificate from one of them are accepted",
    ),
]]);

pub(crate) static ADMIN: Table = Table::new(&[&[
    Key::new("listen", Type::Text(&ADDRESS))
        .default("127.0.0.1:9090")
        .instead_of(LISTEN)
        .about(
            "a change needs a restart; an address that other machines can reach causes a warning",
        ),
    Key::new("ready_when", Type::Words(&words(&READY_WHEN)))
        .default("any")
        .about("how many of the brokers that routes need must be up"),
    Key::new("token", Type::Secret)
        .about("opens the live page; at least 16 bytes; without it the page is available on loopback addresses only"),
    Key::new("show_bodies", Type::Flag)
        .default("false")
        .about("the live page shows bodies and message headers, with secrets masked"),
]]);

pub(crate) static SOURCE: Table = Table::new(&[
    &[
        Key::new("provider", Type::Text(&NAME))
            .depends("the source's name")
            .about("a preset, see [Providers](providers.md); a source with `verify` and `event` needs none")
            .instead_of(&["type", "kind", "preset", "vendor"]),
        Key::new("path", Type::Text(&URL_PATH))
            .depends("`\"/hooks/NAME\"`")
            .about("compared byte for byte; no `.`, `..` or empty segments, no `%`")
            .example("\"/hooks/synq\"")
            .instead_of(&["url", "uri", "endpoint", "paths"]),
        Key::new("secrets", Type::List(&Type::Secret))
            .depends("required, except for `auth = \"none\"`, tokens by a file of keys, and `aws-sns`")
            .about("under 16 bytes causes a warning; list two while a secret is being rotated")
            .example("[{ env = \"SIGNING_SECRET\" }]")
            .instead_of(&[
                "signing_secret",
                "webhook_secret",
                "secret_key",
                "secret_env",
                "secret_file",
                "token",
                "key",
                "api_key",
                "password",
                "hmac_secret",
            ]),
    ],
    &AUTHENTICATION,
    &EVENTS,
    &[
        Key::new("public_url", Type::Text(&URL)).about(
            "the source's URL as the sender knows it, without the query; required for schemes that sign the URL",
        ),
        Key::new("media_types", Type::List(&Type::Text(&MEDIA_TYPE)))
            .depends("the preset's, else `[\"application/json\"]`")
            .about("accepted media types; others are answered 415"),
        Key::new(
            "dedup_window",
            Type::Duration {
                least: "0s",
                most: "7d",
            },
        )
        .depends("the provider's retry time (SYNQ: 1 h), else `\"1h\"`, and at least `tolerance`")
        .about("`\"0s\"` switches it off; see [Duplicates](guarantees.md#duplicates)"),
        Key::new("dedup_by", Type::Words(&words(&DEDUP_BY)))
            .depends("the provider's (SYNQ: `\"id+body\"`)")
            .about("what makes two deliveries the same"),
        Key::new(
            "expect_every",
            Type::Duration {
                least: "1s",
                most: "1y",
            },
        )
        .about("the longest normal time between two authentic events, see [Silence](operations.md#silence)"),
        Key::new("on_invalid", POLICY)
            .default("reject")
            .about("policy for an authentic event that is not valid"),
        Key::new("on_unrouted", POLICY)
            .default("reject")
            .about("policy for an authentic event that no route takes"),
        Key::new("accept_gzip", Type::Flag)
            .default("false")
            .about("accept bodies with `Content-Encoding: gzip`, see [Compressed bodies](#compressed-bodies)"),
        Key::new("schema", Type::Text(&FILE))
            .depends("the provider's")
            .about("a JSON Schema instead of the provider's")
            .example("\"config/schemas/mine.json\""),
        Key::new("schemas", Type::Map(&Type::Text(&FILE))).about(
            "further JSON Schemas by type: `{ \"issues.*\" = \"config/schemas/issues.json\" }`, a glob for each",
        ),
        Key::new("forward_headers", Type::List(&Type::Text(&HEADER)))
            .about("request headers that are copied to the message; not signed, up to 4 KiB together"),
        Key::new("ce_source", Type::Text(&TEXT))
            .depends("`\"/hookbridge/NAME\"`")
            .about("CloudEvents `source`; up to 1024 bytes of printable ASCII without spaces"),
        Key::new(
            "success_status",
            Type::Count {
                least: 200,
                most: 299,
            },
        )
        .depends("the preset's, else `200`")
        .about("with 204 and 205 an answer has no body"),
        Key::new("success_body", Type::Text(&TEXT))
            .depends("`event_id` and `status` as JSON")
            .about("the body of every success, batches too; up to 64 KiB; `\"\"` for an empty one"),
        Key::new("success_content_type", Type::Text(&MEDIA_TYPE))
            .depends("`\"text/plain; charset=utf-8\"`")
            .about("of `success_body`"),
        Key::new("allow_from", Type::List(&Type::Text(&NETWORK)))
            .depends("any address")
            .about("the only addresses that may send, see [Addresses](#addresses)"),
        Key::new("client_names", Type::List(&Type::Text(&HOST)))
            .depends("any")
            .about("the sender's certificate must have one of these names; needs `client_ca`, see [TLS](#tls)"),
        Key::new("rate_limit", Type::Table(&RATE_LIMIT))
            .about("`{ per_second = 200, burst = 400 }`; see [Rate limit](#rate-limit)"),
        Key::new("max_body", BODY)
            .depends("the preset's, else that of `[http]`")
            .about("for this source only"),
        Key::new("publish_timeout", PUBLISH_TIMEOUT)
            .depends("the preset's, else that of `[http]`")
            .about("for this source only"),
        Key::new("max_in_flight", MILLION)
            .depends("that of `[http]`")
            .about("for this source only"),
    ],
    &OF_HOOKS,
])
.notes(&[
    (
        &["topic", "topics", "subject", "broker", "routes", "route", "types", "events"],
        "a route says where events go; write `[[routes]]` with `source`, `types` and `topic`",
    ),
    (
        &["dead_letter", "dead_letters", "dlq", "dead_letter_topic"],
        "write `on_invalid = { dead_letter = { topic = \"…\" } }`, and `on_unrouted` likewise",
    ),
    (
        &["user", "username"],
        "with `auth = \"basic\"` the secret has both; write `secrets = [\"user:password\"]`",
    ),
    (
        &["skip_verification", "insecure", "verify_signature", "unsigned"],
        "a source without a signature is declared in so many words; write `auth = \"none\"`",
    ),
    (
        &["dedup", "deduplicate", "deduplication"],
        "duplicates are recognized by default; write `dedup_window = \"0s\"` to switch that off, or `dedup_by`",
    ),
    (
        &["enabled", "disabled", "active"],
        "a source is there or not; remove the line, or the source",
    ),
]);

static OTHERWISE: Table = Table::new(&[&[Key::new("dead_letter", Type::Table(&DEAD_LETTER))
    .about("answer 200 once the event is stored there")]]);

pub(crate) static DEAD_LETTER: Table = Table::new(&[&[
    Key::new("broker", Type::Text(&NAME)).depends("the only broker"),
    Key::new("topic", Type::Text(&TEXT))
        .required("\"hooks.invalid\"")
        .about("Kafka topic or NATS subject; not a template"),
]]);

pub(crate) static RATE_LIMIT: Table = Table::new(&[&[
    Key::new("per_second", MILLION)
        .required("200")
        .instead_of(&["requests_per_second", "rps", "limit", "rate", "requests"])
        .about("requests a second, on average"),
    Key::new("burst", MILLION)
        .depends("as many as `per_second`")
        .about("requests at the same time after a pause"),
]]);

pub(crate) static ROUTE: Table = Table::new(&[
    &[
        Key::new("source", Type::Text(&NAME)).depends("every source"),
        Key::new("types", Type::List(&Type::Text(&GLOB)))
            .default("[\"*\"]")
            .instead_of(&["event", "events", "event_type", "event_types", "filter", "match"])
            .about("on the event type"),
        Key::new("action", Type::Words(&words(&ACTIONS)))
            .default("publish")
            .about("`\"ignore\"` answers 200 and drops the event; the keys below must then be absent"),
    ],
    &DESTINATION_KEYS,
    &[
        Key::new("fallback", Type::Text(&NAME)).about(
            "a second broker, tried if the first certainly did not store the event; same topic and key",
        ),
        Key::new("copy_to", Type::Tables(&COPY)).about(
            "further destinations with `broker`, `topic`, `topics`, `key`; a 2xx only when every copy is stored",
        ),
    ],
])
.notes(&[
    (
        &["headers", "add_headers"],
        "a message has the bridge's own headers; write `forward_headers` in the source for those of its requests",
    ),
    (
        &["partition"],
        "events with one key share a partition; write `key = \"…\"`",
    ),
    (
        &["order", "priority", "default", "weight"],
        "routes are tried in the order of the file; remove it, and put the route where it belongs",
    ),
]);

static COPY: Table = Table::new(&[&DESTINATION_KEYS]);

static DESTINATION_KEYS: [Key; 4] = [
    Key::new("broker", Type::Text(&NAME)).depends("the only broker"),
    Key::new("topic", Type::Text(&TEMPLATE))
        .depends("required")
        .example("\"hooks.{type}\"")
        .instead_of(&[
            "to",
            "destination",
            "target",
            "subject",
            "queue",
            "stream",
            "topic_name",
        ])
        .about("Kafka topic or NATS subject"),
    Key::new("topics", Type::List(&Type::Text(&TEXT)))
        .depends("any legal one")
        .about("the only topics that the template may become"),
    Key::new("key", Type::Text(&TEMPLATE))
        .depends("the provider's (SYNQ: the id of the issue or incident), else the event id")
        .instead_of(&["key_template", "partition_key", "message_key"])
        .about("Kafka's partition key"),
];
