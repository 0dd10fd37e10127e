//! As much of a nats-server as a publisher needs, with acknowledgements that the test makes up. It stores nothing.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// The answer, if any, to the publish of this number: 0 is the first that is not a question to JetStream's API.
type Answers = dyn Fn(usize) -> Option<String> + Send + Sync;

/// Listens until the tests end; its URL.
pub(crate) fn start(answers: impl Fn(usize) -> Option<String> + Send + Sync + 'static) -> String {
    let answers: Arc<Answers> = Arc::new(answers);
    listen(move |stream| serve_with(stream, &*answers, of_api))
}

fn listen(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || drop(serve(stream)));
        }
    });
    url
}

/// The question with which the bridge finds out whether it gets answers at all.
const ACCOUNT: &str = "$JS.API.INFO";

const INFO: &str = r#"{"server_id":"fake","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576,"jetstream":true}"#;

fn serve_with(
    mut stream: TcpStream,
    answers: &Answers,
    of_api: impl Fn(&str) -> Option<String>,
) -> io::Result<()> {
    stream.write_all(format!("INFO {INFO}\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut subscriptions = Vec::new();
    let (mut line, mut published) = (String::new(), 0);
    while reader.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["PING"] => stream.write_all(b"PONG\r\n")?,
            ["SUB", subject, .., id] => {
                subscriptions.push((subject.trim_end_matches('*').to_owned(), (*id).to_owned()));
            }
            ["PUB" | "HPUB", subject, rest @ .., length] => {
                let length: usize = length.parse().map_err(io::Error::other)?;
                reader.read_exact(&mut vec![0; length + 2])?;
                let to = rest.first().and_then(|reply| {
                    let (_, id) = subscriptions.iter().find(|(of, _)| reply.starts_with(of))?;
                    Some((reply, id))
                });
                if let (Some((reply, id)), Some(answer)) = (to, of_api(subject)) {
                    let message = format!("MSG {reply} {id} {}\r\n{answer}\r\n", answer.len());
                    stream.write_all(message.as_bytes())?;
                } else if let Some((reply, id)) = to {
                    published += 1;
                    let Some(answer) = answers(published - 1) else {
                        line.clear();
                        continue;
                    };
                    let message = format!("MSG {reply} {id} {}\r\n{answer}\r\n", answer.len());
                    stream.write_all(message.as_bytes())?;
                }
            }
            _ => {} // CONNECT, PONG, UNSUB
        }
        line.clear();
    }
    Ok(())
}

/// The answers of JetStream's API: every subject has a stream, which is as it should be.
fn of_api(subject: &str) -> Option<String> {
    if subject == ACCOUNT {
        return Some("{}".to_owned());
    }
    let settings = async_nats::jetstream::stream::Config {
        name: "S".to_owned(),
        num_replicas: 3,
        ..Default::default()
    };
    let answer = match subject.strip_prefix("$JS.API.STREAM.")? {
        "NAMES" => serde_json::json!({ "streams": ["S"], "total": 1 }),
        _ => serde_json::json!({ "config": settings }),
    };
    Some(answer.to_string())
}

/// Listens until the tests end, and answers to nothing but a client's login and whether it gets answers; its URL.
pub(crate) fn silent() -> String {
    listen(|stream| {
        serve_with(stream, &|_| None, |subject| {
            (subject == ACCOUNT).then(|| "{}".to_owned())
        })
    })
}
