//! The live page: who may see it, what it is told, and what a browser makes of it.

use std::io::BufRead as _;
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bridge::{
    self, Bridge, Files, kafka_broker, nats_broker, route_with, synq_source,
};
use crate::support::browser::Browser;
use crate::support::events::{self, SECRET};
use crate::support::fixture::{Broker, Setup};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::sender::{self, Answer, Connection, Request};
use crate::support::wait::{self, PATIENCE};

const TOKEN: &str = "the-token-of-the-live-page-tests";

/// A configuration with more keys for `[admin]`, which listens at this address.
fn files(admin: &str, address: &str, rest: &str) -> Files {
    let text = bridge::whole("", rest).replace(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        &format!("[admin]\nlisten = \"{address}:0\"\n{admin}"),
    );
    bridge::write_text(&text)
}

/// A source that takes anything.
const OPEN: &str = "[sources.open]\nprovider = \"generic\"\nauth = \"none\"\nevent = { id = \"{/id}\", type = \"{/type}\" }\n";

/// In front of NATS, ready.
fn run(admin: &str, address: &str) -> Option<Bridge> {
    let nats = Nats::shared()?;
    let stream = nats.stream("page");
    let rest = nats_broker("main", &nats.url)
        + &synq_source("")
        + OPEN
        + &route_with(&format!("{stream}.open"), "source = \"open\"")
        + &route_with(&format!("{stream}.{{type}}"), "source = \"synq\"");
    let mut bridge = Bridge::run_files(&files(admin, address, &rest), &[]);
    bridge.admin.set_ip([127, 0, 0, 1].into());
    bridge.wait_ready();
    Some(bridge)
}

fn get(bridge: &Bridge, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers
        .iter()
        .fold(Request::new("GET", path), |request, (name, value)| {
            request.header(name, value)
        });
    sender::send(bridge.admin, &request)
}

/// A stream of server-sent events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Opens one, and checks that it is one.
    fn open(admin: SocketAddr, headers: &[(&str, &str)]) -> Self {
        let request = headers
            .iter()
            .fold(Request::new("GET", "/stream"), |request, (name, value)| {
                request.header(name, value)
            });
        let mut connection = Connection::open(admin).unwrap();
        connection.write(&request.bytes()).unwrap();
        let mut stream = Self(BufReader::new(connection.into_socket()));
        let limit = Some(PATIENCE);
        stream.0.get_ref().set_read_timeout(limit).unwrap();
        let head = stream.line();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stream.next("state");
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the stream goes on");
        line.trim_end().to_owned()
    }

    /// The data of the next event of this name.
    fn next(&mut self, name: &str) -> Value {
        let started = Instant::now();
        let wanted = format!("event: {name}");
        while self.line() != wanted {
            assert!(started.elapsed() < PATIENCE, "no {name}");
        }
        let data = self.line();
        let data = data.strip_prefix("data: ").expect(&data);
        serde_json::from_str(data).expect(data)
    }
}

#[test]
fn the_page_is_hardened_and_nothing_of_it_is_from_elsewhere() {
    let bridge = or_skip!(run("", "127.0.0.1"));
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(&bridge, path, &[]);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type));
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
        ));
        assert!(
            !policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        let text = String::from_utf8(answer.body).unwrap();
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !elsewhere.contains("http://") && !elsewhere.contains("https://"),
            "{path}"
        );
        let is_inline = text.contains(" style=\"")
            || text.contains("<style")
            || text.contains(" on") && text.contains("onclick=");
        assert!(!is_inline && !text.contains("innerHTML"), "{path}");
    }
    for (method, path) in [
        ("POST", "/"),
        ("DELETE", "/stream"),
        ("GET", "/login"),
        ("PUT", "/login"),
    ] {
        let answer = sender::send(bridge.admin, &Request::new(method, path));
        assert_eq!(answer.status, 405, "{method} {path}");
    }
    let elsewhere = Request::new("GET", "/")
        .without("host")
        .header("Host", "evil.example");
    assert_eq!(sender::send(bridge.admin, &elsewhere).status, 421);
    let other_site = [("Sec-Fetch-Site", "cross-site")];
    assert_eq!(get(&bridge, "/stream", &other_site).status, 403);
}

on_each_broker!(the_stream_has_each_event_with_its_place_and_no_content_unless_it_is_allowed);

fn the_stream_has_each_event_with_its_place_and_no_content_unless_it_is_allowed<B: Broker>() {
    let bridge = or_skip!(Setup::<B>::new().run());
    let before = events::ping();
    bridge.deliver(&before).expect_published(&before);
    let mut stream = Stream::open(bridge.admin, &[]);
    let event = events::ping();
    let answer = bridge.deliver(&event);
    answer.expect_published(&event);
    let shown = stream.next("event");
    for (name, value) in [
        ("event_id", event.id.as_str()),
        ("request_id", answer.header("x-request-id").unwrap()),
        ("source", "synq"),
        ("type", "ping"),
        ("outcome", "published"),
        ("class", "accepted"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(shown[name], value, "{shown}");
    }
    let message = &shown["messages"][0];
    assert_eq!(message["result"], "stored");
    if B::NAME == "Kafka" {
        assert_eq!(
            (&message["partition"], &message["offset"]),
            (&0.into(), &1.into())
        );
    } else {
        assert_eq!(
            (&message["stream"], &message["sequence"]),
            (&bridge.topic.as_str().into(), &2.into())
        );
    }
    assert_eq!(shown["body"], Value::Null);
    assert_eq!(shown["headers"], serde_json::json!([]));
    let invalid = events::raw(
        r#"{"event_id":"ID","event_type":"EVENT_TYPE_PING","event_time":"yesterday","ping":{}}"#,
    );
    bridge
        .deliver(&invalid)
        .expect_problem(422, "invalid_event");
    let shown = stream.next("event");
    assert_eq!(
        (&shown["class"], &shown["faults"][0]["pointer"]),
        (&"refused".into(), &"/event_time".into())
    );
    assert!(!shown.to_string().contains("yesterday"), "{shown}");
    // The figures of a second have both.
    let mut accepted = 0;
    let mut refused = 0;
    while (accepted, refused) != (1, 1) {
        let rates = stream.next("rates");
        let of = |name: &str| rates["sources"]["synq"][name].as_u64().unwrap_or_default();
        accepted += of("accepted");
        refused += of("refused");
        assert!(accepted + refused <= 2, "{rates}");
    }
}

#[test]
fn the_state_has_brokers_routes_and_whether_destinations_are_durable() {
    let bridge = or_skip!(run("", "127.0.0.1"));
    let mut connection = Connection::open(bridge.admin).unwrap();
    connection
        .write(&Request::new("GET", "/stream").bytes())
        .unwrap();
    let mut stream = Stream(BufReader::new(connection.into_socket()));
    let state = stream.next("state");
    assert_eq!(
        (&state["ready"], &state["missing"]),
        (&true.into(), &serde_json::json!([]))
    );
    assert_eq!(
        (&state["brokers"][0]["name"], &state["brokers"][0]["health"]),
        (&"main".into(), &"up".into())
    );
    let route = &state["routes"][1];
    assert_eq!(
        (&route["number"], &route["sources"][0]),
        (&2.into(), &"synq".into())
    );
    assert!(
        route["destinations"][0]["topic"]
            .as_str()
            .unwrap()
            .ends_with(".{type}"),
        "{route}"
    );
    let destination = &state["destinations"][0];
    // One server keeps one copy.
    assert!(
        matches!(destination["durable"].as_str(), Some("no" | "unknown")),
        "{destination}"
    );
}

#[test]
fn only_so_many_pages_are_served_and_a_slow_one_delays_nobody() {
    let bridge = or_skip!(run("", "127.0.0.1"));
    let mut streams: Vec<_> = (0..8).map(|_| Stream::open(bridge.admin, &[])).collect();
    let refused = get(&bridge, "/stream", &[]);
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("5"))
    );
    // None of them reads, and events are answered.
    for _ in 0..300 {
        bridge.publish_ping();
    }
    assert_eq!(bridge.admin("/metrics").status, 200);
    // Each learns of every event: shown, or counted.
    let mut last = streams.pop().unwrap();
    drop(streams);
    let (mut shown, mut not_shown, mut lost) = (0, 0, 0);
    let started = Instant::now();
    while shown + not_shown + lost < 300 {
        assert!(started.elapsed() < PATIENCE, "{shown} {not_shown} {lost}");
        match last.line().as_str() {
            "event: event" => shown += 1,
            "event: rates" => {
                let data: Value = serde_json::from_str(&last.line()["data: ".len()..]).unwrap();
                not_shown += data["not_shown"].as_u64().unwrap();
            }
            "event: lost" => {
                let data: Value = serde_json::from_str(&last.line()["data: ".len()..]).unwrap();
                lost += data["count"].as_u64().unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(shown + not_shown + lost, 300);
    // Closed streams leave room.
    wait::until("there is room again", PATIENCE, || {
        let head = sender::send(bridge.admin, &Request::new("HEAD", "/stream"));
        head.status == 200
    });
}

#[test]
fn at_an_address_that_others_reach_there_is_no_page_without_a_token() {
    let bridge = or_skip!(run("", "0.0.0.0"));
    for path in ["/", "/stream"] {
        let answer = get(&bridge, path, &[]);
        assert_eq!(answer.status, 403, "{path}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(
            text.contains("token = { env = \"HOOKBRIDGE_ADMIN_TOKEN\" }"),
            "{text}"
        );
    }
    assert_eq!(
        sender::send(bridge.admin, &Request::post("/login", "token=x")).status,
        403
    );
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(bridge.admin(path).status, 200, "{path}");
    }
}

#[test]
fn a_token_opens_the_page_and_its_cookie_ends_when_the_token_changes() {
    let keys = |token: &str| format!("token = \"{token}\"");
    let mut bridge = or_skip!(run(&keys(TOKEN), "0.0.0.0"));
    let page = get(&bridge, "/", &[]);
    assert_eq!(page.status, 401);
    assert!(
        String::from_utf8(page.body)
            .unwrap()
            .contains("<form method=\"post\" action=\"login\">")
    );
    let refused = get(&bridge, "/stream", &[]);
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Bearer realm=\"hookbridge\""))
    );
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(get(&bridge, "/", &[("Authorization", &bearer)]).status, 200);
    drop(Stream::open(bridge.admin, &[("Authorization", &bearer)]));
    let sign_in = |bridge: &Bridge, token: &str| {
        let form = Request::post("/login", format!("token={token}"));
        let form = form
            .without("content-type")
            .header("Content-Type", "application/x-www-form-urlencoded");
        sender::send(bridge.admin, &form)
    };
    for wrong in ["", "wrong", &TOKEN[1..]] {
        let answer = sign_in(&bridge, wrong);
        assert_eq!(
            (answer.status, answer.header("set-cookie")),
            (401, None),
            "{wrong}"
        );
    }
    let long = sign_in(&bridge, &"x".repeat(10_000));
    assert_eq!(long.status, 400);
    let signed_in = sign_in(&bridge, TOKEN);
    assert_eq!(
        (signed_in.status, signed_in.header("location")),
        (303, Some("./"))
    );
    let cookie = signed_in.header("set-cookie").unwrap().to_owned();
    assert!(
        cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains(TOKEN),
        "{cookie}"
    );
    let (cookie, _) = cookie.split_once(';').unwrap();
    let cookie = [("Cookie", cookie)];
    assert_eq!(get(&bridge, "/", &cookie).status, 200);
    let mut stream = Stream::open(bridge.admin, &cookie);
    // Another token ends what the former one opened.
    let text = std::fs::read_to_string(&bridge.file).unwrap();
    std::fs::write(
        &bridge.file,
        text.replace(TOKEN, "another-token-of-16-bytes"),
    )
    .unwrap();
    let before = bridge.reloads();
    bridge.signal("HUP");
    assert!(bridge.wait_for_reload(before));
    assert_eq!(get(&bridge, "/", &cookie).status, 401);
    let started = Instant::now();
    while !matches!(stream.0.fill_buf(), Ok([]) | Err(_)) {
        assert!(started.elapsed() < PATIENCE, "the stream goes on");
        stream.line();
    }
    bridge.wait_for_line(&["is not `admin.token`"]);
    let log = bridge.log().join("\n");
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn a_token_that_could_be_guessed_is_refused() {
    let rest =
        nats_broker("main", "nats://127.0.0.1:1") + &synq_source("") + &route_with("a.b", "");
    let short = files("token = \"short\"", "127.0.0.1", &rest);
    short
        .check(1)
        .expect_stderr(&["admin.token", "fewer than 16 bytes", "openssl rand -hex 32"]);
    // Commands that verify nothing do not ask for it.
    let unset = files("token = { env = \"HB_NOT_SET\" }", "127.0.0.1", &rest);
    unset.check(1).expect_stderr(&["HB_NOT_SET"]);
    let explained = unset.command_reading(&["explain", "--source", "synq"], &events::ping().body);
    explained.expect_code(0);
}

#[test]
fn bodies_are_shown_only_where_allowed_with_secrets_masked_and_within_bounds() {
    let bridge = or_skip!(run("show_bodies = true", "127.0.0.1"));
    let mut stream = Stream::open(bridge.admin, &[]);
    let secret = events::SECRET;
    let event = events::raw(&format!(
        r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","event_time":"2026-11-20T06:15:04.5Z","access_token":"t0p","ping":{{"message":"see https://x.example/?sig=s1gn&a=1 {secret}"}}}}"#
    ));
    bridge.deliver(&event).expect_published(&event);
    let shown = stream.next("event");
    let body = shown["body"].as_str().unwrap();
    assert!(
        body.contains(&event.id)
            && body.contains("\"access_token\": \"***\"")
            && body.contains("sig=***&a=1 ***"),
        "{body}"
    );
    for hidden in ["t0p", "s1gn", secret] {
        assert!(!shown.to_string().contains(hidden), "{hidden}: {shown}");
    }
    let headers = shown["headers"].to_string();
    assert!(
        headers.contains("ce-type") && !headers.to_lowercase().contains("signature"),
        "{headers}"
    );
    // An authentic event that is refused has its body too, another one's is nobody's business.
    let invalid = events::raw(
        r#"{"event_id":"ID","event_type":"EVENT_TYPE_PING","event_time":"yesterday","ping":{}}"#,
    );
    bridge
        .deliver(&invalid)
        .expect_problem(422, "invalid_event");
    assert!(
        stream.next("event")["body"]
            .as_str()
            .unwrap()
            .contains("yesterday")
    );
    bridge.send(&Request::post("/hooks/synq", r#"{"of":"an attacker"}"#).signed("wrong"));
    let shown = stream.next("event");
    assert_eq!(
        (&shown["outcome"], &shown["body"]),
        (&"invalid_signature".into(), &Value::Null)
    );
    let large = events::ping_of_size(17 * 1024);
    bridge.deliver(&large).expect_published(&large);
    let shown = stream.next("event");
    assert_eq!(shown["body"], Value::Null);
    assert_eq!(shown["body_note"], "17408 bytes, too many to be shown.");
}

/// The number of visible events.
const VISIBLE: &str =
    "[...document.querySelectorAll('#rows tr')].filter((row) => !row.hidden).length";

#[test]
fn a_browser_shows_events_as_text_and_is_led_by_the_keyboard_without_a_complaint() {
    let bridge = or_skip!(run("show_bodies = true", "127.0.0.1"));
    let mut browser = or_skip!(Browser::start());
    browser.open(&format!("http://localhost:{}/", bridge.admin.port()));
    browser.wait_for("document.getElementById('connection').textContent === 'live'");
    let hostile = r#"{"id":"h1","type":"<script>window.taken = 1</script><img src=x onerror=window.taken=1>"}"#;
    let answer = bridge.send(&Request::post("/hooks/open", hostile));
    assert_eq!(answer.status, 200, "{answer:?}");
    let event = bridge.publish_ping();
    bridge.send(&Request::post("/hooks/synq", "{}").signed("wrong"));
    browser.wait_for(&format!("{VISIBLE} === 3"));
    let rows = browser.evaluate("document.getElementById('rows').innerText");
    let rows = rows.as_str().unwrap();
    for text in [
        &*event.id,
        "published",
        "ping",
        "@2",
        "<script>window.taken = 1</script><img src=x",
        "invalid_signature",
    ] {
        assert!(rows.contains(text), "{text}: {rows}");
    }
    let taken =
        "[typeof window.taken, document.querySelectorAll('#rows script, #rows img').length].join()";
    assert_eq!(browser.evaluate(taken), "undefined,0");
    let state = browser.evaluate("['sources', 'brokers', 'routes', 'ready'].map((id) => document.getElementById(id).innerText).join()");
    let state = state.as_str().unwrap();
    for text in ["synq", "main", "NATS", "up", "{type}", "ready"] {
        assert!(state.contains(text), "{text}: {state}");
    }
    // The pointer of a fault stands before that fault's reason.
    let faults = "rowOf({ at: 0, class: 'refused', outcome: 'invalid_event', messages: [], duration_ms: 1, detail: '', faults: \
        [{ pointer: '', reason: 'lacks a' }, { pointer: '/b', reason: 'is no number' }] }).querySelector('.hint').textContent";
    assert_eq!(browser.evaluate(faults), "/b: is no number");
    // Filter.
    browser.press("/");
    browser.type_text("published -script");
    browser.wait_for(&format!("{VISIBLE} === 1"));
    browser.press("Escape");
    browser.wait_for(&format!("{VISIBLE} === 3"));
    // Pause.
    browser.press("p");
    bridge.publish_ping();
    browser.wait_for("document.getElementById('shown').textContent.includes('1 are waiting')");
    assert_eq!(browser.evaluate(VISIBLE), 3);
    browser.press("p");
    browser.wait_for(&format!("{VISIBLE} === 4"));
    // To the third row, and into it.
    for key in ["j", "j", "j", "j", "k"] {
        browser.press(key);
    }
    browser.wait_for(&format!(
        "document.activeElement.closest('tr').innerText.includes('{}')",
        event.id
    ));
    browser.press("Enter");
    browser.wait_for("document.getElementById('detail').open");
    let detail = browser.evaluate("document.getElementById('detail-content').innerText");
    let detail = detail.as_str().unwrap();
    assert!(
        detail.contains("\"message\": \"Hello\"") && detail.contains("ce-type"),
        "{detail}"
    );
    let curl = browser.evaluate("document.getElementById('curl').value");
    let curl = curl.as_str().unwrap();
    let url = format!("'http://{}/hooks/synq'", bridge.public);
    assert!(
        curl.starts_with("curl -i ") && curl.contains(&url) && curl.contains("--data-raw '{"),
        "{curl}"
    );
    browser.press("Escape");
    browser.wait_for("!document.getElementById('detail').open");
    // As the system asks for it.
    let looks = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('#rows tr')).animationName].join()";
    let light = browser.evaluate(looks);
    assert_eq!(light, "rgb(246, 247, 249),arrive");
    let media = serde_json::json!({ "features": [
        { "name": "prefers-color-scheme", "value": "dark" },
        { "name": "prefers-reduced-motion", "value": "reduce" },
    ] });
    browser.call("Emulation.setEmulatedMedia", media);
    assert_eq!(browser.evaluate(looks), "rgb(13, 17, 23),none");
    browser.press("x");
    browser.wait_for(&format!("{VISIBLE} === 0"));
    browser.press("?");
    browser.wait_for("document.getElementById('help').open");
    browser.press("Escape");
    // Everything that takes input has a name, every table has headers.
    let nameless = "[...document.querySelectorAll('button, input, textarea')].filter((field) => \
        !field.textContent.trim() && !field.labels?.length && !field.getAttribute('aria-labelledby')).length \
        + [...document.querySelectorAll('table')].filter((table) => !table.querySelector('thead th[scope=col]')).length";
    assert_eq!(browser.evaluate(nameless), 0);
    assert_eq!(browser.take_complaints(), Vec::<String>::new());
}

#[test]
fn a_browser_signs_in_with_the_token() {
    let bridge = or_skip!(run(&format!("token = \"{TOKEN}\""), "127.0.0.1"));
    let mut browser = or_skip!(Browser::start());
    browser.open(&format!("http://127.0.0.1:{}/", bridge.admin.port()));
    browser.wait_for("document.activeElement.id === 'token'");
    // The browser logs the 401 of the form itself.
    browser.take_complaints();
    browser.type_text(TOKEN);
    browser.press("Enter");
    browser.wait_for("document.getElementById('connection')?.textContent === 'live'");
    bridge.publish_ping();
    browser.wait_for(&format!("{VISIBLE} === 1"));
    assert_eq!(browser.evaluate("document.cookie"), "");
    assert_eq!(browser.take_complaints(), Vec::<String>::new());
}

/// Providers and their samples, as they come.
const SAMPLES: [(&str, &str); 7] = [
    ("github", "push"),
    ("stripe", "invoice.paid"),
    ("synq", "issue_created"),
    ("github", "push"),
    ("pagerduty", "incident.triggered"),
    ("shopify", "orders/create"),
    ("github", "issues.opened"),
];

/// The page with events of several providers, for the documentation.
#[test]
#[ignore = "writes docs/live-page.png"]
fn the_screenshot_of_the_documentation() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let mut browser = or_skip!(Browser::start());
    for topic in ["github.push", "payments", "orders"] {
        kafka.create_topic(topic, 3, &[]);
    }
    nats.stream_with("incidents", |settings| {
        "INCIDENTS".clone_into(&mut settings.name);
        settings.subjects = vec!["incidents.>".to_owned()];
    });
    let sources = ["github", "pagerduty", "shopify", "stripe", "synq"]
        .map(|name| format!("[sources.{name}]\nsecrets = [\"{SECRET}\"]\n"));
    let copy = "copy_to = [{ broker = \"edge\", topic = \"incidents.payments\" }]";
    let routes = [
        (
            "github.{type}",
            "source = \"github\"\ntypes = [\"push\"]\nbroker = \"main\"",
        ),
        (
            "payments",
            &format!("source = \"stripe\"\nbroker = \"main\"\n{copy}"),
        ),
        ("orders", "source = \"shopify\"\nbroker = \"main\""),
        (
            "incidents.{source}.{type}",
            "types = [\"incident*\", \"issue_*\"]\nbroker = \"edge\"",
        ),
    ];
    let routes = routes.map(|(topic, keys)| route_with(topic, keys));
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &sources.concat()
        + &routes.concat();
    let bridge = Bridge::run_files(&files("show_bodies = true", "127.0.0.1", &rest), &[]);
    bridge.wait_brokers_up(2);
    browser.open(&format!("http://localhost:{}/", bridge.admin.port()));
    browser.wait_for("document.getElementById('connection').textContent === 'live'");
    let mut samples = SAMPLES.iter().cycle();
    for round in 0..110 {
        for (provider, event_type) in samples.by_ref().take(1 + (round * 5) % 4) {
            let url = format!("http://{}/hooks/{provider}", bridge.public);
            let secret = if round % 9 == 8 {
                "another-secret-of-someone"
            } else {
                SECRET
            };
            let send = [
                "send",
                "--provider",
                provider,
                "--secret",
                secret,
                "--url",
                &url,
            ];
            bridge::hookbridge(send.into_iter().chain(["--sample", *event_type]));
        }
        if round % 12 == 7 {
            let invalid =
                r#"{"event_id":"ID","event_type":"EVENT_TYPE_PING","event_time":"soon","ping":{}}"#;
            bridge.deliver(&events::raw(invalid));
        }
        // A column of the charts is a second.
        wait::play_silence(Duration::from_millis(400));
    }
    let picture = browser.screenshot(1240, 1000);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/live-page.png");
    std::fs::write(file, picture).unwrap();
}
