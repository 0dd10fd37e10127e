//! docs/getting-started.md from the first command to the first event, as it is written: only ports are replaced, and the
//! brokers are those of the tests.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::process::{self, Process};
use crate::support::wait;

const PAGE: &str = include_str!("../../docs/getting-started.md");

/// The commands below a heading.
fn commands(heading: &str) -> String {
    let mut lines = PAGE.lines();
    assert!(
        lines.any(|line| line == heading),
        "the page has no {heading:?}"
    );
    let mut is_command = false;
    let mut commands = String::new();
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        match line {
            "```sh" => is_command = true,
            "```" => is_command = false,
            line if is_command => {
                commands.push_str(line);
                commands.push('\n');
            }
            _ => {}
        }
    }
    assert!(!commands.is_empty(), "{heading:?} has no commands");
    commands
}

/// A folder to work in, and what is different from the reader's machine.
struct Terminal {
    folder: PathBuf,
    path: String,
    public: u16,
    admin: u16,
    broker: (&'static str, String),
    secret: String,
}

impl Terminal {
    fn new(broker: (&'static str, String)) -> Self {
        let folder = process::directory("getting-started");
        let programs = folder.join("bin");
        std::fs::create_dir(&programs).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_hookbridge"));
        std::os::unix::fs::symlink(program, programs.join("hookbridge")).unwrap();
        let path = std::env::var("PATH").unwrap();
        Self {
            path: format!("{}:{path}", programs.display()),
            folder,
            public: process::port(),
            admin: process::port(),
            broker,
            secret: String::new(),
        }
    }

    fn spawn(&self, script: &str) -> Process {
        let script = script
            .replace(":8080", &format!(":{}", self.public))
            .replace(":9090", &format!(":{}", self.admin));
        let mut command = process::command("bash");
        command
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .env(self.broker.0, &self.broker.1)
            .env("SYNQ_SECRET", &self.secret)
            .env(
                "HOOKBRIDGE__HTTP__LISTEN",
                format!("127.0.0.1:{}", self.public),
            )
            .env(
                "HOOKBRIDGE__ADMIN__LISTEN",
                format!("127.0.0.1:{}", self.admin),
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Process::spawn(command)
    }

    /// Runs commands to their successful end. What they print.
    fn run(&self, script: &str) -> String {
        let mut process = self.spawn(script);
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let status = process.wait(wait::PATIENCE);
        let printed = stdout.finished(wait::PATIENCE).join("\n");
        let complaints = stderr.finished(wait::PATIENCE).join("\n");
        assert!(
            status.success(),
            "{script}\n--- stdout\n{printed}\n--- stderr\n{complaints}"
        );
        printed
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.admin)) else {
            return false;
        };
        let asked = stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    /// "Run it", and in a second terminal "Send a first event".
    fn run_and_send(&self) {
        let mut bridge =
            self.spawn(&commands("## 5. Run it").replace("hookbridge", "exec hookbridge"));
        let _log = (bridge.stdout(), bridge.stderr());
        wait::until("the bridge is ready", wait::PATIENCE, || self.is_ready());
        let printed = self.run(&commands("## 6. Send a first event"));
        assert!(printed.contains("HTTP 200"), "{printed}");
        assert!(printed.contains("\"status\":\"published\""), "{printed}");
        // The output of `tail`.
        assert!(
            printed.contains("ce_type") || printed.contains("ce-type"),
            "{printed}"
        );
        assert!(printed.contains("synq.events"), "{printed}");
        bridge.signal("INT");
        assert!(bridge.wait(wait::PATIENCE).success());
    }
}

/// The commands of a section, and the secret that they make.
fn set_up(terminal: &mut Terminal, script: &str) -> String {
    let script = format!("{script}\nprintf %s \"$SYNQ_SECRET\" > secret\n");
    let printed = terminal.run(&script);
    terminal.secret = std::fs::read_to_string(terminal.folder.join("secret")).unwrap();
    printed
}

#[test]
fn the_page_leads_from_nothing_to_a_first_event_in_kafka_and_then_in_nats() {
    // As Kafka is by default.
    let kafka = or_skip!(Kafka::private_that_creates());
    let variable = "HOOKBRIDGE__BROKERS__MAIN__BOOTSTRAP_SERVERS";
    let mut terminal = Terminal::new((variable, kafka.address.clone()));
    let script = commands("## 3. Write a configuration") + &commands("## 4. Create the topics");
    let printed = set_up(&mut terminal, &script);
    assert!(printed.contains("all as expected"), "{printed}");
    assert!(printed.contains("created synq.events"), "{printed}");
    terminal.run_and_send();

    let nats = or_skip!(Nats::private());
    terminal.broker = ("HOOKBRIDGE__BROKERS__MAIN__SERVERS", nats.url.clone());
    let script = commands("## With NATS instead");
    let (server, script) = script.split_once('\n').unwrap();
    assert_eq!(server, "nats-server --jetstream");
    let printed = set_up(&mut terminal, script);
    assert!(printed.contains("created HOOKBRIDGE"), "{printed}");
    terminal.run_and_send();
}
