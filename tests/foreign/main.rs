//! Clients that are not ours: Python's Thrift library in all four of framed and unframed, binary and compact; a client of
//! the original program's interface; Python's requests; Schemathesis, which holds the HTTP door against its own
//! document; and every block of docs/clients.md, word for word: curl, Python, Node.
//!
//! Installs what it needs into the target folder; what cannot be had is named, and the test is skipped.

#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]
#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

use std::path::{Path, PathBuf};
use std::process::Command;

#[allow(dead_code, reason = "this test needs a part of it")]
#[path = "../cluster/process.rs"]
mod process;

use process::{Cluster, Shape, project, text};

/// The release that the test was written against.
const THRIFT: &str = "thrift==0.25.0";
const REQUESTS: &str = "requests==2.32.5";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const NODE_THRIFT: &str = "thrift@0.17.0";

/// Runs a command; its output if it failed, or could not be run.
fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}{}", text(&output.stdout), text(&output.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// A Python with these packages, kept from run to run. One test at a time prepares it.
fn python(packages: &[&str]) -> Result<PathBuf, String> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = folder();
    let python = folder.join("venv/bin/python");
    if run(Command::new(&python).args(["-c", ""])).is_err() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")))?;
    }
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(&python).args(install).args(packages))?;
    Ok(python)
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command that must succeed, and prints what it said.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    print!("{out}");
    assert!(output.status.success(), "{command:?}\n{out}{err}");
    out
}

fn with_http() -> Cluster {
    Cluster::shaped(Shape { http: true, ..Shape::DEMO })
}

fn generate(folder: &Path) -> Result<(), String> {
    for file in ["chord.thrift", "tests/foreign/original.thrift"] {
        let mut command = Command::new("thrift");
        run(command.args(["--gen", "py", "-out"]).arg(folder).arg(project().join(file)))?;
    }
    Ok(())
}

#[test]
fn pythons_thrift_library_is_served_in_all_four_formats() {
    let folder = folder();
    let python = match python(&[THRIFT]).and_then(|python| generate(&folder).map(|()| python)) {
        Ok(python) => python,
        Err(missing) => {
            eprintln!(
                "SKIPPED: Python's thrift library or the Thrift compiler is missing: {missing}"
            );
            return;
        }
    };
    let mut cluster = Cluster::demo();
    let client = |mode: &str, address: &str| {
        let mut command = Command::new(&python);
        command.arg(project().join("tests/foreign/client.py")).arg(&folder).args([mode, address]);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let output = command.output().unwrap();
        print!("{}", text(&output.stdout));
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    };
    client("all", &cluster.address(0));
    // "137" is kept by 2, 3 and 0.
    cluster.wait_equal();
    cluster.kill(2);
    cluster.kill(3);
    cluster.wait_alive(0, &[0, 1]);
    client("outage", &cluster.address(0));
}

/// Python's requests: keys of any bytes, caches, ranges, batches, and both older systems' words.
#[test]
fn pythons_requests_are_served() {
    let python = match python(&[REQUESTS]) {
        Ok(python) => python,
        Err(missing) => {
            eprintln!("SKIPPED: Python's requests cannot be had: {missing}");
            return;
        }
    };
    let cluster = with_http();
    let mut command = Command::new(python);
    // Without the folder of the script on the path: its name is that of a standard module.
    command.arg("-P").arg(project().join("tests/foreign/http.py"));
    succeed(command.args(cluster.http.iter().map(u16::to_string)));
}

/// The document of the HTTP door against the door itself: statuses, content types and bodies are as documented, whatever
/// is sent.
#[test]
fn the_openapi_document_is_kept() {
    let python = match python(&[SCHEMATHESIS]) {
        Ok(python) => python,
        Err(missing) => {
            eprintln!("SKIPPED: Schemathesis cannot be had: {missing}");
            return;
        }
    };
    let cluster = with_http();
    let mut command = Command::new(python.with_file_name("st"));
    let checks = "status_code_conformance,content_type_conformance,response_schema_conformance";
    command.args(["run", &format!("http://127.0.0.1:{}/openapi.json", cluster.http[1])]);
    command.args(["--checks", checks, "--max-examples", "20", "--seed", "1", "--no-color"]);
    command.args(["--phases", "coverage,fuzzing", "--generation-database", ":memory:"]);
    succeed(command.current_dir(folder()));
}

/// A block of docs/clients.md.
struct Block {
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let document = std::fs::read_to_string(project().join("docs/clients.md")).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in document.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block { language: language.to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// The text of the demo's ports, with those of this cluster.
fn moved(text: &str, cluster: &Cluster) -> String {
    let mut text = text.to_owned();
    for server in 0..4 {
        text = text.replace(
            &format!("127.0.0.1:800{server}"),
            &format!("127.0.0.1:{}", cluster.http[server]),
        );
    }
    text.replace("\"127.0.0.1\", 9000", &format!("\"127.0.0.1\", {}", cluster.ports[0]))
}

/// What docs/clients.md shows is run as it stands there, and prints what one would expect.
#[test]
fn the_clients_of_the_documentation_work() {
    let cluster = with_http();
    let folder = folder().join("clients");
    std::fs::create_dir_all(&folder).unwrap();
    let (mut run_blocks, mut skipped) = (0, Vec::new());
    for Block { language, text } in blocks() {
        let text = moved(&text, &cluster);
        let (mut command, expected): (Command, &[&str]) = match language.as_str() {
            "sh" if run(Command::new("curl").arg("--version")).is_err() => {
                skipped.push("curl".to_owned());
                continue;
            }
            "sh" => {
                // Every command must answer, and none with a server's error.
                let script = text.replace("curl ", "curl --fail-with-body ");
                let mut command = Command::new("bash");
                command.args(["-euc", &script]);
                (command, &[])
            }
            "python" => {
                let generated = generate_into(&folder, "py");
                match python(&[THRIFT, REQUESTS]).and_then(|python| generated.map(|()| python)) {
                    Ok(python) => {
                        let mut command = Command::new(python);
                        command.args(["-c", &text]);
                        let http = text.contains("requests");
                        let said: &[&str] = if http {
                            &["stored", "b'v'", "there is no key 'nobody'"]
                        } else {
                            &["b'v'", "True invalid request: the key is empty"]
                        };
                        (command, said)
                    }
                    Err(missing) => {
                        skipped.push(missing);
                        continue;
                    }
                }
            }
            "js" => {
                let install = ["install", "--silent", "--no-audit", "--no-fund", NODE_THRIFT];
                let installed = run(Command::new("npm").args(install).current_dir(&folder));
                match installed.and_then(|()| generate_into(&folder, "js:node")) {
                    Ok(()) => {
                        std::fs::write(folder.join("client.js"), &text).unwrap();
                        let mut command = Command::new("node");
                        command.arg("client.js");
                        (command, &["true v"])
                    }
                    Err(missing) => {
                        skipped.push(missing);
                        continue;
                    }
                }
            }
            "rust" => {
                // It is compiled as an example; here it is only held against that.
                let example = std::fs::read_to_string(project().join("examples/client.rs"));
                let (_, example) = example.as_ref().unwrap().split_once("\n\n").unwrap();
                assert_eq!(text, example, "docs/clients.md and examples/client.rs differ");
                continue;
            }
            other => panic!("docs/clients.md has a block of '{other}', which nobody runs"),
        };
        let said = succeed(command.current_dir(&folder));
        for expected in expected {
            assert!(said.contains(expected), "'{expected}' is missing:\n{text}\n{said}");
        }
        run_blocks += 1;
    }
    for missing in &skipped {
        eprintln!("SKIPPED: a block of docs/clients.md: {missing}");
    }
    assert!(run_blocks + skipped.len() >= 6, "docs/clients.md has lost its blocks");
    assert_eq!(cluster.get(3, "foo", chord::model::Level::Quorum).unwrap().as_deref(), Some("bar"));
}

/// Code for clients in the language of docs/clients.md.
fn generate_into(folder: &Path, language: &str) -> Result<(), String> {
    let mut command = Command::new("thrift");
    command.args(["--gen", language, "-o"]).arg(folder);
    run(command.arg(project().join("chord.thrift")))
}

/// `gen/` is what the compiler makes of `chord.thrift`, where there is a compiler.
#[test]
fn the_generated_code_is_current() {
    let output = Command::new(project().join("gen/regenerate.sh")).arg("--check").output().unwrap();
    match output.status.code() {
        Some(0) => {}
        Some(2) => eprintln!("SKIPPED: {}", text(&output.stderr)),
        _ => panic!("{}{}", text(&output.stdout), text(&output.stderr)),
    }
}
