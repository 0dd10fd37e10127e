//! Templates, and whole configurations from text: a problem or a configuration, never a panic.
#![no_main]

use hookbridge::config::{ConfigFile, Origin, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(template) = Template::parse(text) {
        assert_eq!(template.as_str(), text);
    }
    // Devices would be read endlessly; only the operator may name them.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    let origin = Origin {
        files: vec![ConfigFile::Text {
            name: "fuzz.toml".to_owned(),
            text: text.to_owned(),
        }],
        environment: vec![("SECRET".to_owned(), "whs_fuzz".to_owned())],
    };
    match origin.load() {
        Ok(config) => {
            for id in config.broker_ids() {
                for name in config.known_destinations(id) {
                    let kind = config.broker(id).settings.kind();
                    assert!(kind.check_destination(&name).is_ok(), "{name:?}");
                }
            }
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
});
