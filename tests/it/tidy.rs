//! The house rules that a program can check, each a pure function from a text to its offences.

use std::fs;
use std::path::{Path, PathBuf};

/// The floors of the house, from the ground up. A file imports only from floors below its own, so
/// two modules that need each other cannot both find a place. Whoever adds a module puts it here.
const FLOORS: &[&[&str]] = &[
    &["units", "bugs", "sync", "events"],
    &["error", "record"],
    &["format", "storage"],
    &["retention"],
    &["options"],
    &["segment", "manifest", "consumers"],
    &["state"],
    &["commit"],
    &["follow"],
    &["cursor", "compaction", "checkpoint"],
    &["log", "fuzzing", "tools"],
    &["lib"],
];

const RULES: &[Rule] = &[
    starts_with_its_purpose,
    is_short,
    has_clean_lines,
    has_no_banned_words,
    imports_one_item_a_line,
    points_down,
    keeps_to_the_seams,
];

const COLUMNS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 600;
const SOURCE_LINES_MAX: usize = 400;
const ARCHITECTURE_LINES_MAX: usize = 150;

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = rust_files(root);
    let itself = files.iter().any(|path| path == "tests/it/tidy.rs");
    assert!(itself, "the rules do not find their own file: {files:?}");

    let mut offences = Vec::new();
    for path in &files {
        let text = read(root, path);
        offences.extend(RULES.iter().flat_map(|rule| rule(path, &text)));
    }

    let exists = |path: &str| root.join(path).exists();
    for path in markdown_files(root) {
        offences.extend(links_lead_somewhere(&path, &read(root, &path), &exists));
    }

    let architecture = read(root, "ARCHITECTURE.md");
    offences.extend(architecture_is_a_map(&architecture, &source_folders(root)));
    offences.extend(examples_agree(&read(root, "README.md"), &read(root, "src/lib.rs")));

    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

/// A path from the root of the repository, with `/`, and the text of the file.
type Rule = fn(path: &str, text: &str) -> Vec<String>;

fn starts_with_its_purpose(path: &str, text: &str) -> Vec<String> {
    if text.starts_with("//! ") || path == "tests/it/main.rs" {
        return Vec::new();
    }
    vec![offence(path, 1, "does not start with `//!` and a sentence that says what it is for")]
}

/// Tests are not what makes a file hard to read, up to a point.
fn is_short(path: &str, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    let all = text.lines().count();
    if all > FILE_LINES_MAX {
        offences.push(offence(path, all, &format!("{all} lines, more than {FILE_LINES_MAX}")));
    }
    let code = match text.rsplit_once("\n#[cfg(test)]\n") {
        Some((code, rest)) if rest.contains("mod tests") => code.lines().count(),
        _ => all,
    };
    if in_src(path) && !path.ends_with("/tests.rs") && code > SOURCE_LINES_MAX {
        let what = format!("{code} lines without the tests, more than {SOURCE_LINES_MAX}");
        offences.push(offence(path, code, &what));
    }
    offences
}

fn has_clean_lines(path: &str, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    for (number, line) in numbered(text) {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            let what = format!("{columns} columns, more than {COLUMNS_MAX}");
            offences.push(offence(path, number, &what));
        }
        if line.contains('\t') {
            offences.push(offence(path, number, "a tab"));
        }
        if line.ends_with([' ', '\t', '\r']) {
            offences.push(offence(path, number, "white space at the end"));
        }
    }
    offences
}

fn has_no_banned_words(path: &str, text: &str) -> Vec<String> {
    // In two pieces, so that this file does not break its own rule.
    let mut banned = vec![
        (concat!("TO", "DO"), "open an issue, or do it"),
        (concat!("FIX", "ME"), "open an issue, or do it"),
        (concat!("dbg", "!"), "left from debugging"),
    ];
    if in_src(path) {
        banned.push((concat!("flu", "sh"), "means four things; say write, sync or close"));
    }
    let mut offences = Vec::new();
    for (number, line) in numbered(text) {
        for (word, reason) in &banned {
            if line.contains(word) {
                offences.push(offence(path, number, &format!("`{word}`: {reason}")));
            }
        }
    }
    offences
}

fn imports_one_item_a_line(path: &str, text: &str) -> Vec<String> {
    let several = |line: &str| {
        let line = code(line).trim_start();
        let own = line.starts_with("use crate::") || line.starts_with("pub");
        own && line.contains("use crate::") && line.contains(['{', '*'])
    };
    numbered(text)
        .filter(|(_, line)| several(line))
        .map(|(number, _)| offence(path, number, "more than one own-crate import in a line"))
        .collect()
}

/// Every `crate::` path counts, not just the imports.
fn points_down(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of(path) else {
        return Vec::new();
    };
    let Some(floor) = floor_of(module) else {
        let what = format!("`{module}` has no floor: give it one in tests/it/tidy.rs");
        return vec![offence(path, 1, &what)];
    };
    let mut offences = Vec::new();
    for (number, line) in numbered(text) {
        if has_word(line, "super::super") {
            offences.push(offence(path, number, "`super::super` hides where an arrow points"));
        }
        for (at, _) in code(line).match_indices("crate::") {
            let target = identifier(&code(line)[at + "crate::".len()..]);
            if target.is_empty() || target == module {
                continue;
            }
            match floor_of(target) {
                Some(below) if below < floor => {}
                Some(other) => offences.push(offence(
                    path,
                    number,
                    &format!("`{module}` is on floor {floor}, `{target}` on {other}: not below"),
                )),
                None => offences.push(offence(
                    path,
                    number,
                    &format!("`crate::{target}` is not a module: name the item where it lives"),
                )),
            }
        }
    }
    offences
}

fn keeps_to_the_seams(path: &str, text: &str) -> Vec<String> {
    if !in_src(path) {
        return Vec::new();
    }
    let mut offences = Vec::new();
    for (number, line) in numbered(text) {
        let line = code(line);
        let files = has_word(line, "std::fs") || (line.contains("std::{") && has_word(line, "fs"));
        let system = files || has_word(line, "rustix") || has_word(line, "memmap2");
        if system && !path.starts_with("src/storage/") {
            offences.push(offence(path, number, "only src/storage/ talks to the system"));
        }
        let shared = ["parking_lot", "std::thread", "Condvar", "AtomicU64", "AtomicUsize"];
        let named = shared.iter().any(|word| has_word(line, word));
        let elsewhere = line.contains("use ") && !line.contains("crate::sync");
        let exempt = path.starts_with("src/storage/") || path.starts_with("src/sync/");
        if named && elsewhere && !exempt {
            offences.push(offence(path, number, "only src/sync/ knows what threads share"));
        }
        if has_word(line, "unsafe") && path != "src/storage/map.rs" {
            offences.push(offence(path, number, "only src/storage/map.rs has unsafe code"));
        }
    }
    offences
}

/// Links to the web and to headings are not followed.
fn links_lead_somewhere(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut offences = Vec::new();
    let mut in_code = false;
    for (number, line) in numbered(text) {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for link in line.split("](").skip(1) {
            let link = link.split([')', '#', ' ']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let target = Path::new(folder).join(link);
            if !exists(&slashes(&target)) {
                let what = format!("the link leads to {}, which is missing", target.display());
                offences.push(offence(path, number, &what));
            }
        }
    }
    offences
}

fn architecture_is_a_map(text: &str, folders: &[String]) -> Vec<String> {
    let path = "ARCHITECTURE.md";
    let mut offences = Vec::new();
    let lines = text.lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        let what = format!("{lines} lines, more than {ARCHITECTURE_LINES_MAX}");
        offences.push(offence(path, lines, &what));
    }
    for folder in folders {
        if !has_word(text, &format!("{folder}/")) {
            offences.push(offence(path, lines, &format!("does not name {folder}/")));
        }
    }
    offences
}

/// The first example a reader meets is the same on the web page and in the docs, where it is run.
fn examples_agree(readme: &str, lib: &str) -> Vec<String> {
    let shown = first_example(readme, |info| info.starts_with("rust"));
    let docs: String = lib
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    let run = first_example(&docs, |info| info.is_empty() || info.starts_with("rust"));
    let (Some((number, shown)), Some((_, run))) = (shown, run) else {
        return vec![offence("README.md", 1, "here or in src/lib.rs there is no Rust example")];
    };
    // A line that rustdoc hides is not part of what is read.
    let run = run.into_iter().filter(|line| *line != "#" && !line.starts_with("# "));
    let pairs = shown.iter().copied().map(Some).chain([None]).zip(run.map(Some).chain([None]));
    match pairs.enumerate().find(|(_, (shown, run))| shown != run) {
        None => Vec::new(),
        Some((nth, (shown, run))) => {
            let [shown, run] = [shown, run].map(|line| line.unwrap_or("(the end)"));
            let what = format!("the example differs from that of src/lib.rs: {shown:?}, {run:?}");
            vec![offence("README.md", number + 1 + nth, &what)]
        }
    }
}

/// The line number of the opening fence, and the lines inside.
fn first_example(text: &str, accepts: fn(&str) -> bool) -> Option<(usize, Vec<&str>)> {
    let mut lines = numbered(text);
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let inside = lines.by_ref().map(|(_, line)| line);
        let inside = inside.take_while(|line| !line.starts_with("```")).collect();
        if accepts(info.trim()) {
            return Some((number, inside));
        }
    }
    None
}

fn offence(path: &str, line: usize, what: &str) -> String {
    format!("{path}:{}: {what}", line.max(1))
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.split('\n'))
}

/// A line without its comment. A string that contains two slashes is cut too; no rule minds.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// Whether `text` has `word` and not just as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part) && (word.ends_with('/') || !after.is_some_and(part))
    })
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn in_src(path: &str) -> bool {
    path.starts_with("src/")
}

/// `src/log/append.rs` and `src/log.rs` belong to `log`.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    Some(identifier(inside))
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

fn rust_files(root: &Path) -> Vec<String> {
    let folders = ["src", "tests", "examples", "benches"];
    let files = folders.iter().flat_map(|folder| walk(&root.join(folder)));
    with_extension(root, files, "rs")
}

fn markdown_files(root: &Path) -> Vec<String> {
    let top = entries(root).into_iter().filter(|path| path.is_file());
    with_extension(root, top.chain(walk(&root.join("docs"))), "md")
}

fn source_folders(root: &Path) -> Vec<String> {
    let folders = entries(&root.join("src")).into_iter().filter(|path| path.is_dir());
    folders.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

fn with_extension(root: &Path, files: impl Iterator<Item = PathBuf>, end: &str) -> Vec<String> {
    let files = files.filter(|path| path.extension().is_some_and(|found| found == end));
    files.map(|path| slashes(path.strip_prefix(root).unwrap_or(&path))).collect()
}

/// The files in a folder and the folders below it; none if the folder is missing.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = entries(folder).into_iter();
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn slashes(path: &Path) -> String {
    path.display().to_string().replace('\\', "/")
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A path, a text that the rule must report, and how the report goes on behind the path.
type Sample = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
const BAD: &[(Rule, &[Sample])] = &[
    (starts_with_its_purpose, &[
        ("src/log/mod.rs", "use x;", ":1: does not start with `//!`"),
        ("src/log/mod.rs", "\n//! Late.", ":1: does not start with `//!`"),
    ]),
    (is_short, &[
        ("src/log/mod.rs", "<400 lines>x", ":401: 401 lines without the tests"),
        ("tests/it/crash.rs", "<400 lines><400 lines>", ":800: 800 lines"),
        ("src/log/mod.rs", "\n#[cfg(test)]\nmod tests {<400 lines><400 lines>", ":802: 802 lines"),
    ]),
    (has_clean_lines, &[
        ("src/error.rs", "<100 columns>\n<100 columns>x", ":2: 101 columns"),
        ("src/error.rs", "a\n\tb", ":2: a tab"),
        ("src/error.rs", "a \nb", ":1: white space"),
        ("src/error.rs", "a\r\nb", ":1: white space"),
    ]),
    (has_no_banned_words, &[
        ("tests/it/append.rs", concat!("a\n// TO", "DO: later"), ":2: `TO"),
        ("benches/append.rs", concat!("// FIX", "ME"), ":1: `FIX"),
        ("examples/a.rs", concat!("dbg", "!(x)"), ":1: `dbg"),
        ("src/lib.rs", concat!("//! Then flu", "sh it."), ":1: `flu"),
    ]),
    (imports_one_item_a_line, &[
        ("src/log/a.rs", "use crate::error::{Error, Result};", ":1: more than one"),
        ("src/log/a.rs", "pub use crate::error::*;", ":1: more than one"),
    ]),
    (points_down, &[
        ("src/error.rs", "use crate::record::Record;", ":1: `error` is on floor 1"),
        ("src/format/a.rs", "a\nuse crate::log::Log;", ":2: `format` is on floor 2, `log` on 10"),
        ("src/state/a.rs", "let x = crate::commit::Tail;", ":1: `state` is on floor 6"),
        ("src/log/a.rs", "use crate::Offset;", ":1: `crate::Offset` is not a module"),
        ("src/log/a.rs", "use super::super::state;", ":1: `super::super`"),
        ("src/novel.rs", "", ":1: `novel` has no floor"),
    ]),
    (keeps_to_the_seams, &[
        ("src/log/a.rs", "use std::fs;", ":1: only src/storage/ talks"),
        ("src/log/a.rs", "use std::{fs, io};", ":1: only src/storage/ talks"),
        ("src/log/a.rs", "rustix::fs::fsync(x)", ":1: only src/storage/ talks"),
        ("src/log/a.rs", "use memmap2::Mmap;", ":1: only src/storage/ talks"),
        ("src/log/a.rs", "use parking_lot::Mutex;", ":1: only src/sync/ knows"),
        ("src/log/a.rs", "use std::sync::atomic::{AtomicU64, Ordering};", ":1: only src/sync/"),
        ("src/log/a.rs", "use std::thread;", ":1: only src/sync/ knows"),
        ("src/storage/fs.rs", "unsafe { x }", ":1: only src/storage/map.rs"),
    ]),
];

#[test]
fn each_rule_bites() {
    for (rule, samples) in BAD {
        for (path, text, expected) in *samples {
            let text = text.replace("<400 lines>", &"\n".repeat(400));
            let text = text.replace("<100 columns>", &"x".repeat(100));
            let found = rule(path, &text);
            let expected = format!("{path}{expected}");
            assert!(found.len() == 1 && found[0].starts_with(&expected), "{expected}: {found:?}");
        }
    }
    for rule in RULES {
        let tested = BAD.iter().any(|(tested, _)| std::ptr::fn_addr_eq(*tested, *rule));
        assert!(tested, "a rule has no text that it must report");
    }
}

#[test]
fn no_rule_bites_what_is_right() {
    let tests_do_not_count = format!(
        "//! A.\n{}#[cfg(test)]\nmod tests {{\n{}}}\n",
        "\n".repeat(SOURCE_LINES_MAX - 1),
        "\n".repeat(100)
    );
    let good = [
        ("src/segment/scan.rs", "//! A.\nuse crate::segment::names;\nuse crate::format::Frame;\n"),
        ("src/segment/scan.rs", "//! See `crate::log`, which uses std::fs and unsafe code.\n"),
        ("src/storage/fs.rs", "//! A.\nuse std::fs;\nuse rustix::fs::OFlags;\nunsafe_code\n"),
        ("src/storage/map.rs", "//! A.\nunsafe { x }\n"),
        ("src/lib.rs", "//! A.\npub use crate::log::Log;\n"),
        ("src/log/mod.rs", &tests_do_not_count),
        ("tests/it/main.rs", "mod tidy;\n"),
        ("tests/it/tidy.rs", "//! A.\nuse std::fs;\n"),
    ];
    for (path, text) in good {
        let found: Vec<String> = RULES.iter().flat_map(|rule| rule(path, text)).collect();
        assert_eq!(found, [""; 0], "{path}");
    }
}

#[test]
fn the_rules_for_pages_bite() {
    let exists = |path: &str| ["README.md", "docs/a.md"].contains(&path);
    let links =
        "[ok](docs/a.md#part) [web](https://a.b/c) [here](#part)\n\n```\n[x](y)\n```\n[a](b)";
    let found = links_lead_somewhere("README.md", links, &exists);
    assert_eq!(found, ["README.md:6: the link leads to b, which is missing"]);
    let found = links_lead_somewhere("docs/b.md", "[a](a.md)\n[b](b.md)", &exists);
    assert_eq!(found, ["docs/b.md:2: the link leads to docs/b.md, which is missing"]);

    let folders = ["log".to_owned(), "format".to_owned()];
    assert_eq!(architecture_is_a_map("`src/log/` and `format/`", &folders), [""; 0]);
    let found = architecture_is_a_map("`catalog/` and format/", &folders);
    assert_eq!(found, ["ARCHITECTURE.md:1: does not name log/"]);
    let found =
        architecture_is_a_map(&"format/ log/\n".repeat(ARCHITECTURE_LINES_MAX + 1), &folders);
    assert_eq!(found, ["ARCHITECTURE.md:151: 151 lines, more than 150"]);

    let readme = "# a\n```text\nx\n```\n```rust\nlet a = 1;\nlet b = 2;\n```\n";
    let lib =
        "//! A.\n//!\n//! ```\n//! let a = 1;\n//! let b = 2;\n//! # Ok(())\n//! ```\nmod a;\n";
    assert_eq!(examples_agree(readme, lib), [""; 0]);
    let found = examples_agree(readme, &lib.replace("b = 2", "b = 3"));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("README.md:7: the example differs"), "{found:?}");
    let found = examples_agree(readme, &lib.replace("//! # Ok(())", "//! let c;"));
    assert!(found[0].starts_with("README.md:8: the example differs"), "{found:?}");
    assert_eq!(examples_agree(readme, "//! A.\n").len(), 1);
}
