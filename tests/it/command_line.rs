//! The command line as scripts use it: exit codes, what errors name, precedence of flags, variables and file, secrets,
//! and `inspect` in the words of the HTTP interface.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::oracle;
use crate::support::server::{Server, WRITE_KEY};

fn weir(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn error_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_config_is_checked_without_serving() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.toml");
    let file = path.to_str().unwrap();
    let check = |text: &str, flags: &[&str], variables: &[(&str, &str)]| {
        std::fs::write(&path, text).unwrap();
        weir(&[&["serve", "--check", "--config", file], flags].concat(), variables)
    };
    assert_eq!(check("cores = 1\nidle_time = \"5 s\"", &[], &[]).status.code(), Some(0));
    for (text, said) in [
        ("\n\nlisten_on = 1", &["line 3", "listen_on", "expected one of", "`listen`"][..]),
        ("\nlisten = \"here\"", &["line 2", "listen", "127.0.0.1:8080"]),
        ("idle_time = \"5 parsecs\"", &["line 1", "idle_time", "10 s"]),
        ("cores = 1\nconnections_max = 0", &["line 2", "connections_max", "at least 1"]),
        ("log_format = \"xml\"", &["line 1", "log_format", "`text` or `json`"]),
        ("admin = \"0.0.0.0:9090\"", &["line 1", "admin", "admin_token"]),
        ("write_key = \"two words\"", &["line 1", "write_key", "without spaces"]),
        ("cors_origin = \"example.org\"", &["line 1", "cors_origin", "https://"]),
        ("log = \"info,[[\"", &["line 1", "log", "weir::net=debug"]),
    ] {
        let output = check(text, &[], &[]);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let error = error_of(&output);
        assert!(error.contains(file), "{text}: no file in {error}");
        for word in said {
            assert!(error.contains(word), "{text}: no {word:?} in {error}");
        }
    }
    // Flags win over variables, variables over the file: the first that is wrong tells which was read.
    let good = "connections_max = 5";
    let variable = [("WEIR_CONNECTIONS_MAX", "0")];
    assert_eq!(check(good, &[], &variable).status.code(), Some(2));
    assert_eq!(check(good, &["--connections-max", "7"], &variable).status.code(), Some(0));
    assert_eq!(check("connections_max = 0", &[], &[("WEIR_CONNECTIONS_MAX", "7")]).status.code(), Some(0));
    assert_eq!(weir(&["serve", "--check"], &[("WEIR_CONFIG", "/nowhere.toml")]).status.code(), Some(2));
}

#[test]
fn exit_codes() {
    let video = oracle::vector("df2997.mp4");
    let video = video.to_str().unwrap();
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["serve", "--help"], 0),
        (&["inspect", video], 0),
        (&["inspect", video, "--timecode", "01:00:01;00"], 0),
        (&[], 2),
        (&["sreve"], 2),
        (&["serve", "--libary", "x"], 2),
        (&["serve", "--cores", "many"], 2),
        (&["inspect"], 2),
        (&["inspect", video, "--timecode", "one o'clock"], 2),
        (&["inspect", video, "--timecode", "23:00:00;00"], 1),
        (&["inspect", "/nowhere.mp4"], 1),
        (&["inspect", "Cargo.toml"], 1),
        (&["serve", "--library", "/nowhere", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], 1),
    ] {
        let output = weir(arguments, &[("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"))]);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", error_of(&output));
        assert!(code == 0 || !error_of(&output).is_empty(), "{arguments:?} says nothing");
        assert!(!error_of(&output).contains("panicked"), "{arguments:?}: {}", error_of(&output));
    }
}

/// The keys of an object, with those of the objects in it.
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| {
            found.push(format!("{path}/{key}"));
            keys(inner, &format!("{path}/{key}"), found);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, inner)| keys(inner, &format!("{path}/{n}"), found)),
        _ => {}
    }
}

#[test]
fn inspect_speaks_as_the_server_does() {
    for name in ["df2997.mp4", "cut.ts", "audio.m4a"] {
        let video = oracle::vector(name);
        let server = Server::builder().video(&video, name).start();
        let printed = |more: &[&str]| -> Value {
            let output = weir(&[&["inspect", video.to_str().unwrap(), "--json"], more].concat(), &[]);
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {}", error_of(&output)))
        };
        let (inspected, served) = (printed(&[]), server.get(&format!("/videos/{name}")).json());
        let (mut here, mut there) = (Vec::new(), Vec::new());
        keys(&inspected, "", &mut here);
        keys(&served, "", &mut there);
        assert_eq!(here, there, "{name}");
        for key in ["id", "size_bytes", "duration", "container", "fragmented", "start_timecode", "tracks", "index"] {
            assert_eq!(inspected[key], served[key], "{name}: {key}");
        }
        if let Some(start) = served["start_timecode"].as_str() {
            let seek = server.get(&format!("/videos/{name}/seek?timecode={start}")).json();
            assert_eq!(printed(&["--timecode", start]), seek, "{name}");
        }
    }
}

#[test]
fn the_write_key_is_printed_once_and_kept() {
    // An empty variable would be a wrong key: only the state directory has one here.
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("library");
    std::fs::create_dir(&library).unwrap();
    let run = || {
        let mut command = Command::new("timeout");
        command.args(["--signal=TERM", "1"]).arg(env!("CARGO_BIN_EXE_weir"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
            command.env_remove(name);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--library"]).arg(&library);
        command.arg("--state-dir").arg(dir.path().join("state"));
        let output = command.output().unwrap();
        (String::from_utf8(output.stdout.clone()).unwrap(), error_of(&output))
    };
    let (first, log) = run();
    let key = std::fs::read_to_string(dir.path().join("state/write_key")).unwrap();
    assert!(key.trim().len() >= 20 && first.matches(key.trim()).count() == 1, "{first}");
    assert!(!log.contains(key.trim()), "the key is in the log");
    let (second, _) = run();
    assert!(second.contains("listening on") && !second.contains(key.trim()), "{second}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(dir.path().join("state/write_key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others can read the key: {mode:o}");
}

#[test]
fn a_second_server_on_the_same_directories_does_not_start() {
    let mut server = Server::builder().bytes("b.bin", b"bytes").start();
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path().to_str().unwrap();
    let (library, state) = (server.library(), server.state_dir());
    let (library, state) = (library.to_str().unwrap(), state.to_str().unwrap());
    for (library, state, said) in [(library, elsewhere, "library "), (elsewhere, state, "state_dir ")] {
        let directories = ["--library", library, "--state-dir", state];
        let ports = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let output = weir(&[&ports[..], &directories].concat(), &[]);
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(said) && error.contains("another weir server"), "{error}");
    }
    // A crash leaves no lock behind.
    server.kill();
    server.restart();
    assert_eq!(server.get("/videos/b.bin/file").body, b"bytes");
}

#[test]
fn a_secret_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "from-a-file\n").unwrap();
    // The variable that the tests set names a key; the flag wins over it, as a file too.
    let output =
        weir(&["serve", "--check", "--write-key-file", path.to_str().unwrap()], &[("WEIR_WRITE_KEY", WRITE_KEY)]);
    assert_eq!(output.status.code(), Some(2), "twice within one source is refused: {}", error_of(&output));
    let output = weir(&["serve", "--check", "--write-key-file", path.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    let mut server = Server::builder().variable("WEIR_ADMIN_TOKEN_FILE", path.to_str().unwrap()).start();
    assert_eq!(server.admin_get("/metrics").status, 401);
    server.signal("TERM");
    assert!(server.wait(Duration::from_secs(10)).is_some());
}
