//! The files that `deploy/install` installs.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::bridge::{PROGRAM, hookbridge};
use crate::support::process;

/// The commands that `hookbridge --help` lists.
pub(crate) fn commands() -> BTreeSet<String> {
    let help = hookbridge(["--help"]).expect_code(0).stdout;
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    listed
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_program_is_installed_with_manual_pages_and_completions_for_every_command() {
    let folder = process::directory("install");
    let prefix = folder.join("usr");
    std::os::unix::fs::symlink(PROGRAM, folder.join("a-program")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/install");
    let mut install = process::command(script);
    // Paths are the caller's.
    install.current_dir(&folder);
    install.args(["--prefix", "usr", "--program", "a-program"]);
    let done = install.output().unwrap();
    assert!(done.status.success(), "{done:?}");

    let version = process::command(prefix.join("bin/hookbridge"))
        .arg("--version")
        .output()
        .unwrap();
    assert!(version.status.success(), "{version:?}");

    let share = prefix.join("share");
    let completions = [
        "bash-completion/completions/hookbridge",
        "zsh/site-functions/_hookbridge",
        "fish/vendor_completions.d/hookbridge.fish",
    ]
    .map(|file| read(&share.join(file)));
    // The names of the example configuration are nobody's.
    for script in &completions {
        assert!(script.contains("standard-webhooks") && !script.contains("synq.ping"));
    }
    let commands = commands();
    assert!(commands.len() > 5, "{commands:?}");
    for command in &commands {
        let page = read(&share.join(format!("man/man1/hookbridge-{command}.1")));
        assert!(page.contains(".SH SYNOPSIS"), "{command}: {page}");
        for script in &completions {
            assert!(script.contains(command.as_str()), "{command}");
        }
    }
    assert!(read(&share.join("man/man1/hookbridge.1")).contains(".SH SYNOPSIS"));
}
