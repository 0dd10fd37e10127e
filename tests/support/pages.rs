//! The configurations on the pages of providers.

use super::secrets::variables;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The configuration on the page of a preset.
pub(crate) fn documented(name: &str) -> String {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/providers/{name}.md"));
    let page = page.unwrap_or_else(|error| panic!("docs/providers/{name}.md: {error}"));
    let block = page
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    block.expect("a configuration").to_owned()
}

/// The tables of a configuration without those of its brokers.
pub(crate) fn without_brokers(text: &str) -> String {
    let mut tables: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            tables.push(String::new());
        }
        if let Some(table) = tables.last_mut() {
            table.push_str(line);
            table.push('\n');
        }
    }
    tables.retain(|table| !table.starts_with("[brokers."));
    tables.concat()
}

/// With the broker named in each route, as a second broker requires.
pub(crate) fn with_broker(text: &str) -> String {
    let named = text.replace("\ntopic = ", "\nbroker = \"main\"\ntopic = ");
    named.replace(
        "broker = \"main\"\nbroker = \"main\"\n",
        "broker = \"main\"\n",
    )
}

/// The tables before and after the first route.
fn at_routes(name: &str) -> (String, String) {
    let text = without_brokers(&documented(name));
    let at = text.find("[[routes]]").expect("a route");
    let (sources, routes) = text.split_at(at);
    (sources.to_owned(), routes.to_owned())
}

/// The source on the page of a preset, with these secrets instead of its variable, and with further keys, which replace
/// those of the page.
pub(crate) fn source(name: &str, secrets: &[&str], keys: &str) -> String {
    let (mut text, _) = at_routes(name);
    let secrets: Vec<_> = secrets.iter().map(|secret| format!("{secret:?}")).collect();
    for (variable, _) in variables(&text) {
        text = text.replace(&format!("{{ env = \"{variable}\" }}"), &secrets.join(", "));
    }
    let key_of = |line: &str| line.split_once(" =").map(|(key, _)| key.to_owned());
    let given: Vec<_> = keys.lines().filter_map(key_of).collect();
    let own = text
        .lines()
        .filter(|line| key_of(line).is_none_or(|key| !given.contains(&key)));
    let own: Vec<_> = own.collect();
    format!("{}\n{keys}\n", own.join("\n").trim_end())
}

/// The routes on the page of a preset, with topics below a prefix, on the broker `main`.
pub(crate) fn routes(name: &str, prefix: &str) -> String {
    let (_, routes) = at_routes(name);
    with_broker(&routes).replace("topic = \"", &format!("topic = \"{prefix}."))
}
