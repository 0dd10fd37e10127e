//! Kafka with authorization: SASL users have only the rights granted to them. The plain listener's user may do
//! everything.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::{Kafka, QUICK_RETURN};
use crate::support::process;

/// The password of every user.
pub(crate) const PASSWORD: &str = "granted-little";

/// Resource types in the protocol.
#[derive(Clone, Copy)]
pub(crate) enum Resource {
    Topic = 2,
    Group = 3,
}

/// Operations in the protocol.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Read = 3,
    Write = 4,
    Describe = 8,
    DescribeConfigs = 10,
}

impl Kafka {
    /// A running broker for one test with these users, who have no rights yet.
    pub(crate) fn private_with_users(users: &[&str]) -> Option<Self> {
        let settings = format!(
            "{QUICK_RETURN}authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n"
        );
        let kafka = Self::absent(&settings, 0).or_else(|| process::missing("Kafka"))?;
        let logins: String = users
            .iter()
            .map(|user| format!(" user_{user}=\"{PASSWORD}\""))
            .collect();
        kafka.daemon().edit(|text| {
            text.replace(
                "PlainLoginModule required",
                &format!("PlainLoginModule required{logins}"),
            )
        });
        kafka.start();
        Some(kafka)
    }

    /// Grants a user an operation on a topic or group.
    pub(crate) fn grant(&self, user: &str, resource: Resource, name: &str, operation: Operation) {
        let mut body = Vec::new();
        let text = |body: &mut Vec<u8>, text: &str| {
            let length = i16::try_from(text.len()).expect("a short text");
            body.extend(length.to_be_bytes());
            body.extend(text.as_bytes());
        };
        // CreateAcls, version 1, with the header of every request.
        body.extend([0, 30, 0, 1, 0, 0, 0, 1]);
        text(&mut body, "hookbridge-tests");
        body.extend(1_i32.to_be_bytes());
        body.push(resource as u8);
        text(&mut body, name);
        const LITERAL: u8 = 3;
        body.push(LITERAL);
        text(&mut body, &format!("User:{user}"));
        text(&mut body, "*");
        const ALLOW: u8 = 3;
        body.extend([operation as u8, ALLOW]);
        let mut stream = TcpStream::connect(&self.address).expect("Kafka answers");
        let length = i32::try_from(body.len()).expect("a short request");
        stream
            .write_all(&length.to_be_bytes())
            .expect("Kafka reads");
        stream.write_all(&body).expect("Kafka reads");
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length")];
        stream.read_exact(&mut answer).expect("an answer");
        // Correlation id, throttle time, number of results, and the error code of the first.
        assert_eq!(answer.get(12..14), Some(&[0, 0][..]), "{answer:?}");
    }
}
