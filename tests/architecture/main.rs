//! The layers, held against the sources: who may import whom, and what no pure module may know.

#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

use std::fs;
use std::path::{Path, PathBuf};

/// A module of `src`, what of this crate it may import, and what else it must never name.
struct Rule {
    module: &'static str,
    may_import: &'static [&'static str],
    never: &'static [&'static str],
    /// The sentence for whoever broke it.
    because: &'static str,
}

const PURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net",
    "std::thread",
    "SystemTime",
    "std::time::Instant",
    "chord_gen",
];

const RULES: &[Rule] = &[
    Rule {
        module: "model",
        may_import: &["model", "ring::Partitioner", "ring::Topology"],
        never: PURE,
        because: "the vocabulary knows nothing but itself (ring is named in its documentation only)",
    },
    Rule {
        module: "storage",
        may_import: &["storage", "model"],
        never: PURE,
        because: "the log knows cells and a Disk, neither peers nor ranges nor async",
    },
    Rule {
        module: "ring",
        may_import: &["ring", "model"],
        never: PURE,
        because: "placement does not know that a network exists",
    },
    Rule {
        module: "wire",
        may_import: &["wire", "model"],
        never: &["tokio::", "std::fs", "std::net", "std::thread", "SystemTime"],
        because: "wire turns bytes into messages; who sends and receives them is not its business",
    },
    Rule {
        module: "node",
        may_import: &["node", "model", "ring", "storage"],
        never: PURE,
        because: "the protocol takes time, chance and IO as arguments",
    },
    Rule {
        module: "budget",
        may_import: &["budget", "wire::MAX_FRAME_LENGTH"],
        never: &["std::fs", "std::net", "std::thread", "SystemTime", "chord_gen"],
        because: "it counts bytes, whatever they mean",
    },
    Rule {
        module: "server",
        may_import: &["server", "budget", "node", "storage", "wire", "ring", "model"],
        never: &["chord_gen"],
        because: "the driver of the real world; only wire names the generated types",
    },
    Rule {
        module: "sim",
        may_import: &["sim", "judge", "node", "storage", "wire", "ring", "model"],
        never: &["tokio::", "std::net", "SystemTime", "chord_gen"],
        because: "a simulated world has no real sockets, clocks or tasks",
    },
    Rule {
        module: "judge",
        may_import: &["judge"],
        never: PURE,
        because: "a history is judged by what clients saw, whatever the store is",
    },
    Rule {
        module: "client",
        may_import: &["client", "wire", "model", "ring"],
        never: &["chord_gen"],
        because: "a client knows messages, not how servers keep their promises",
    },
    Rule {
        module: "fuzz",
        may_import: &["fuzz", "client", "wire", "storage", "model"],
        never: PURE,
        because: "a fuzzer's input is all that a target depends on",
    },
    Rule {
        module: "torture",
        may_import: &["torture", "judge", "client", "model", "sim::Random"],
        never: &["chord_gen", "thrift::"],
        because: "real servers are seen through their doors alone; what was seen is judged elsewhere",
    },
    Rule {
        module: "bench",
        may_import: &["bench", "client", "wire", "model", "ring"],
        never: &["chord_gen", "thrift::"],
        because: "what is measured is what any client sees",
    },
    Rule {
        module: "gateway",
        may_import: &["gateway", "budget", "client", "model", "wire::FailureCode"],
        never: &["chord_gen", "thrift::"],
        because: "a door translates; whatever it stores goes through the client library",
    },
];

/// Parts of the node that must not know each other.
const PARTS: &[&str] =
    &["coordinator", "handoff", "repair", "membership", "replica", "heal", "scrub"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path) {
            files.push(path);
        }
    }
    files
}

/// Files that are compiled for tests alone.
fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.ends_with("stories.rs")
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The lines before the tests of a file, with their numbers; comments left out.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or("").to_owned()))
        .collect()
}

/// What a line imports from this crate: the paths after each `crate::`.
fn imports(line: &str) -> Vec<String> {
    let path = |rest: &str| {
        rest.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect::<String>()
    };
    line.match_indices("crate::").map(|(at, found)| path(&line[at + found.len()..])).collect()
}

#[test]
fn every_module_imports_only_what_lies_below_it() {
    let mut broken = Vec::new();
    for rule in RULES {
        for file in sources(&src().join(rule.module)) {
            for (number, line) in code(&file) {
                let place = format!("{}:{number}", file.display());
                for path in imports(&line) {
                    let allowed = rule.may_import.iter().any(|may| {
                        path.strip_prefix(may)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                    });
                    if !allowed {
                        broken.push(format!("{place}: crate::{path}: {}", rule.because));
                    }
                }
                for word in rule.never.iter().filter(|word| line.contains(**word)) {
                    broken.push(format!("{place}: {word}: {}", rule.because));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_parts_of_the_node_do_not_know_each_other() {
    let mut broken = Vec::new();
    for part in PARTS {
        let folder = src().join("node").join(part);
        let files = if folder.is_dir() {
            sources(&folder)
        } else {
            vec![src().join("node").join(format!("{part}.rs"))]
        };
        for file in files {
            for (number, line) in code(&file) {
                for other in PARTS.iter().filter(|other| *other != part) {
                    if line.contains(&format!("super::{other}")) {
                        let place = format!("{}:{number}", file.display());
                        broken.push(format!(
                            "{place}: {other}: parts report, node.rs carries the news"
                        ));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A file that grows past what one can read in a sitting wants a second room.
#[test]
fn no_file_is_too_long_to_read_in_a_sitting() {
    let long: Vec<_> = sources(&src())
        .into_iter()
        .map(|file| (fs::read_to_string(&file).unwrap().lines().count(), file))
        .filter(|(lines, _)| *lines > 750)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

/// The rules are about folders that exist: a renamed module must not slip out of them.
#[test]
fn the_rules_cover_the_tree() {
    let mut modules: Vec<_> = fs::read_dir(src())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "bin")
        .collect();
    modules.sort();
    let mut ruled: Vec<_> = RULES.iter().map(|rule| rule.module.to_owned()).collect();
    ruled.sort();
    assert_eq!(modules, ruled);
}
