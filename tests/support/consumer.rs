//! A message read back from either kind of broker.

/// One stored message.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Kafka's topic or NATS' subject.
    pub(crate) topic: String,
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) value: Vec<u8>,
    /// Kafka's partition; 0 for NATS.
    pub(crate) partition: i32,
}

impl Stored {
    /// The one header of that name (case-sensitive); panics if there are two.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(header, _)| header == name);
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "two headers {name}: {self:?}");
        first
    }

    /// The header names, sorted.
    pub(crate) fn header_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Checks that it has exactly these headers, the ones in the second list with any value.
    #[track_caller]
    pub(crate) fn expect_headers(&self, expected: &[(&str, &str)], also: &[&str]) {
        for (name, value) in expected {
            assert_eq!(self.header(name), Some(*value), "{name}: {self:?}");
        }
        let mut names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
        names.extend(also);
        names.sort_unstable();
        assert_eq!(self.header_names(), names);
    }

    pub(crate) fn event_id(&self) -> &str {
        self.header("event_id")
            .unwrap_or_else(|| panic!("no event_id: {self:?}"))
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = String::from_utf8_lossy(&self.value);
        let shown: String = value.chars().take(300).collect();
        f.debug_struct("Stored")
            .field("topic", &self.topic)
            .field("key", &self.key)
            .field("headers", &self.headers)
            .field("bytes", &self.value.len())
            .field("value", &shown)
            .field("partition", &self.partition)
            .finish()
    }
}

/// The message of a reading that must have exactly one.
pub(crate) fn only(messages: Vec<Stored>) -> Stored {
    let [message] = <[Stored; 1]>::try_from(messages)
        .unwrap_or_else(|all| panic!("not exactly one message: {all:#?}"));
    message
}

/// The messages' values in order.
pub(crate) fn values(messages: Vec<Stored>) -> Vec<Vec<u8>> {
    messages.into_iter().map(|message| message.value).collect()
}
