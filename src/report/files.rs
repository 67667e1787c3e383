//! The report directory: what a verb leaves for CI to publish, also after a refusal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::sheet::Report;
use super::{html, junit, markdown};

/// Why a report was not written.
#[derive(Debug, thiserror::Error)]
#[error("could not write the report {}", path.display())]
pub struct ReportError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Writes `report.json` (the document), `report.txt` (the summary), `junit.xml`, `report.md` and `report.html` into
/// `dir`, which is made when missing. A file is replaced as a whole or not at all.
pub fn write_report(dir: &Path, report: &Report<'_>, summary: &str) -> Result<(), ReportError> {
    fs::create_dir_all(dir).map_err(|source| ReportError { path: dir.to_owned(), source })?;
    let files = [
        ("report.json", report.document.to_json()),
        ("report.txt", summary.to_owned()),
        ("junit.xml", junit(report)),
        ("report.md", markdown(report)),
        ("report.html", html(report)),
    ];
    files.into_iter().try_for_each(|(name, content)| write_whole(&dir.join(name), &content))
}

/// Writes one file, whole or not at all.
pub fn write_whole(path: &Path, content: &str) -> Result<(), ReportError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    fs::write(&part, content)
        .and_then(|()| fs::rename(&part, path))
        .map_err(|source| ReportError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::{Document, Ending};

    fn refused(document: &Document) -> Report<'_> {
        Report { document, run: None, resume: None }
    }

    #[test]
    fn a_report_is_five_files_also_after_a_refusal_and_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("out/report");
        let document = Document::of_verb("check", None, Ending::Refused);
        write_report(&dir, &refused(&document), "first").unwrap();
        write_report(&dir, &refused(&document), "second").unwrap();
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["junit.xml", "report.html", "report.json", "report.md", "report.txt"]);
        assert_eq!(fs::read_to_string(dir.join("report.txt")).unwrap(), "second");
        assert_eq!(fs::read_to_string(dir.join("report.json")).unwrap(), document.to_json());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = file.path().join("report");
        let document = Document::of_verb("check", None, Ending::Done);
        let error = write_report(&dir, &refused(&document), "").unwrap_err();
        assert_eq!(error.path, dir);
    }
}
