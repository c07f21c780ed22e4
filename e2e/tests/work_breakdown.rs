//! Holds `docs/work-breakdown.md` to the repository: it may claim only what can be opened and run.
//!
//! A page that maps requirements to code rots in silence; here a renamed test or a moved file is a failure.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use walkdir::{DirEntry, WalkDir};

const PAGE: &str = "docs/work-breakdown.md";
/// How many checkboxes the work breakdown has.
const TOTAL: usize = 111;
const COLUMNS: &str = "| item | what | state | code | test |";
/// Folders whose files nobody here wrote. Dot folders are left out as well.
const FOREIGN: [&str; 4] = ["target", "node_modules", "dist", "__pycache__"];
/// What a test can be written in.
const SOURCES: [&str; 6] = ["rs", "py", "ts", "tsx", "js", "mjs"];

/// One line of a table.
struct Row {
    item: String,
    state: String,
    code: Vec<String>,
    test: Vec<String>,
}

/// Where a claim is looked up.
struct Repository {
    root: PathBuf,
    rust: Vec<String>,
    python: Vec<String>,
    web: Vec<String>,
}

pub(crate) fn every_row_of_the_work_breakdown_names_code_and_tests_that_exist() {
    let repository = Repository::open();
    let page = fs::read_to_string(repository.root.join(PAGE)).expect("the page is readable");
    let complaints = repository.complaints(&page);
    assert!(complaints.is_empty(), "{PAGE}:\n  {}", complaints.join("\n  "));
}

pub(crate) fn a_work_breakdown_that_claims_what_is_not_there_is_caught() {
    let repository = Repository::open();
    let page = fs::read_to_string(repository.root.join(PAGE)).expect("the page is readable");
    let own_test = "a_work_breakdown_that_claims_what_is_not_there_is_caught";
    let (code, test) = (format!("`{PAGE}`"), format!("`{own_test}`"));
    let nothing = format!("`no_such_{}`", "test");
    let reset = |state: &str, code: &str, test: &str| {
        let edited = page.lines().map(|line| match line.split('|').nth(1) {
            Some(" 5.4.4 ") => format!("| 5.4.4 | logs | {state} | {code} | {test} |"),
            _ => line.to_owned(),
        });
        edited.collect::<Vec<_>>().join("\n")
    };
    let sound = reset("done", &code, &test);
    assert_eq!(repository.complaints(&sound), Vec::<String>::new());
    let wrong = [
        (reset("done", "`no/such/file.rs`", &test), "no/such/file.rs"),
        (reset("done", "`../work`", &test), "../work"),
        (reset("done", &code, &nothing), "no_such_test"),
        (reset("done", "", &test), "names no code"),
        (reset("done", &code, ""), "names no test"),
        (reset("open", &code, ""), "open, yet"),
        (reset("open", "", &test), "open, yet"),
        (reset("maybe", "", ""), "maybe"),
        (reset("done", PAGE, &test), "not in backticks"),
        (sound.replace("| 5.4.4 |", "| 5.4.5 |"), "expected 5.4.4"),
        (sound.replace("| 5.4.4 |", "| 5.4.3 |"), "expected 5.4.4"),
        (sound.replace("| 1.1.2 |", "| second |"), "second"),
        (sound.replace(COLUMNS, "| item | what |"), "columns"),
        (sound.replace("| 5.4.4 | logs", "| 5.4.4 | a | b"), "cells"),
    ];
    for (page, expected) in wrong {
        let complaints = repository.complaints(&page).join("\n");
        assert!(complaints.contains(expected), "{expected:?} is not in {complaints:?}");
    }
}

impl Repository {
    fn open() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut repository = Self { root, rust: Vec::new(), python: Vec::new(), web: Vec::new() };
        let files = WalkDir::new(&repository.root).into_iter().filter_entry(ours).filter_map(Result::ok);
        for file in files.filter(|entry| entry.file_type().is_file()) {
            let path = file.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if !extension.is_some_and(|extension| SOURCES.contains(&extension)) {
                continue;
            }
            // A file that vanished while others work in the tree holds no test.
            let text = fs::read_to_string(path).unwrap_or_default();
            let of_tests = is_of_tests(path.strip_prefix(&repository.root).unwrap_or(path));
            match extension {
                Some("rs") if of_tests || text.contains("test]") || text.contains("::test(") => {
                    repository.rust.push(text);
                }
                Some("py") if of_tests => repository.python.push(text),
                Some(_) if of_tests => repository.web.push(text),
                _ => {}
            }
        }
        repository
    }

    /// Everything that is wrong with the page, one sentence each.
    fn complaints(&self, page: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut rows = Vec::new();
        for (number, line) in (1..).zip(page.lines()).filter(|(_, l)| l.starts_with('|')) {
            match row(line) {
                Ok(row) => rows.extend(row),
                Err(complaint) => complaints.push(format!("line {number}: {complaint}")),
            }
        }
        complaints.extend(order(&rows));
        complaints.extend(rows.iter().flat_map(|row| self.claims(row)));
        complaints
    }

    /// What is wrong with a row's claims.
    fn claims(&self, row: &Row) -> Vec<String> {
        let item = &row.item;
        match row.state.as_str() {
            "open" if row.code.is_empty() && row.test.is_empty() => Vec::new(),
            "open" => vec![format!("{item} is open, yet names code or a test")],
            "done" => {
                let mut complaints = Vec::new();
                if row.code.is_empty() {
                    complaints.push(format!("{item} is done, yet names no code"));
                }
                if row.test.is_empty() {
                    complaints.push(format!("{item} is done, yet names no test"));
                }
                let missing = row.code.iter().filter(|path| !self.has_path(path));
                complaints.extend(missing.map(|path| format!("{item}: there is no {path}")));
                let missing = row.test.iter().filter(|name| !self.has_test(name));
                complaints.extend(missing.map(|name| format!("{item}: there is no test {name}")));
                complaints
            }
            other => vec![format!("{item}: a state is open or done, not {other:?}")],
        }
    }

    fn has_path(&self, path: &str) -> bool {
        let inside = !path.starts_with('/') && path.split('/').all(|part| part != "..");
        inside && self.root.join(path).exists()
    }

    /// A function of that name in Rust or Python, or a quoted title in a web test.
    fn has_test(&self, name: &str) -> bool {
        let holds = |texts: &[String], sought: &str| texts.iter().any(|text| text.contains(sought));
        holds(&self.rust, &format!("fn {name}("))
            || holds(&self.python, &format!("def {name}("))
            || ['"', '\'', '`'].iter().any(|quote| holds(&self.web, &format!("{quote}{name}{quote}")))
    }
}

fn ours(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    entry.depth() == 0 || !(name.starts_with('.') || FOREIGN.contains(&name.as_ref()))
}

/// By its name or that of a folder: `tests/x.rs`, `test_x.py`, `x.test.ts`.
fn is_of_tests(path: &Path) -> bool {
    path.iter().any(|part| part.to_string_lossy().contains("test"))
}

/// Reads a line of a table; the heading and the rule under it are no rows.
fn row(line: &str) -> Result<Option<Row>, String> {
    if line.starts_with("|-") || line == COLUMNS {
        return Ok(None);
    }
    if line.starts_with("| item |") {
        return Err(format!("the columns must be {COLUMNS}"));
    }
    let inner = line.trim_matches('|');
    let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
    let [item, what, state, code, test] = cells[..] else {
        return Err(format!("a row has 5 cells, this one {}", cells.len()));
    };
    if what.is_empty() {
        return Err(format!("{item} does not say what it is"));
    }
    Ok(Some(Row { item: item.to_owned(), state: state.to_owned(), code: quoted(code)?, test: quoted(test)? }))
}

/// The backticked names of a cell, which are all that may stand there.
fn quoted(cell: &str) -> Result<Vec<String>, String> {
    let parts: Vec<&str> = cell.split('`').collect();
    let separators = parts.iter().step_by(2);
    if parts.len().is_multiple_of(2) || separators.clone().any(|s| !matches!(s.trim(), "" | ",")) {
        return Err(format!("{cell:?} is not in backticks"));
    }
    let names = parts.iter().skip(1).step_by(2);
    Ok(names.map(|name| (*name).to_owned()).collect())
}

/// Items stand in order: within a group by one, groups within a phase by one, and none twice.
fn order(rows: &[Row]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut last = [1, 1, 0];
    for Row { item, .. } in rows {
        let [phase, group, number] = last;
        let follows = [[phase, group, number + 1], [phase, group + 1, 1], [phase + 1, 1, 1]];
        let parts: Vec<usize> = item.split('.').filter_map(|part| part.parse().ok()).collect();
        match <[usize; 3]>::try_from(parts) {
            Ok(found) if follows.contains(&found) => last = found,
            Ok(_) => complaints
                .push(format!("{item} is out of order: expected {phase}.{group}.{}, or a new group", number + 1)),
            Err(_) => complaints.push(format!("{item:?} is no item's number")),
        }
    }
    let distinct: BTreeSet<&str> = rows.iter().map(|row| row.item.as_str()).collect();
    if distinct.len() != TOTAL || rows.len() != TOTAL {
        let (rows, distinct) = (rows.len(), distinct.len());
        complaints.push(format!("{TOTAL} items are asked for; there are {rows} rows with {distinct} numbers"));
    }
    complaints
}
