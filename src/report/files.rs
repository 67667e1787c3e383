//! The report directory: what a verb leaves for CI to publish, also after a refusal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::document::Document;

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

/// Writes `report.json` (the document) and `report.txt` (the summary) into `dir`, which is made when missing. A file
/// is replaced as a whole or not at all.
pub fn write_report(dir: &Path, document: &Document, summary: &str) -> Result<(), ReportError> {
    fs::create_dir_all(dir).map_err(|source| ReportError { path: dir.to_owned(), source })?;
    for (name, content) in [("report.json", document.to_json().as_str()), ("report.txt", summary)] {
        let (path, part) = (dir.join(name), dir.join(format!(".{name}.part")));
        fs::write(&part, content)
            .and_then(|()| fs::rename(&part, &path))
            .map_err(|source| ReportError { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::Ending;

    #[test]
    fn a_report_is_two_files_and_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("out/report");
        let document = Document::of_verb("check", None, Ending::Refused);
        write_report(&dir, &document, "first").unwrap();
        write_report(&dir, &document, "second").unwrap();
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["report.json", "report.txt"]);
        assert_eq!(fs::read_to_string(dir.join("report.txt")).unwrap(), "second");
        assert_eq!(fs::read_to_string(dir.join("report.json")).unwrap(), document.to_json());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = file.path().join("report");
        let error = write_report(&dir, &Document::of_verb("check", None, Ending::Done), "").unwrap_err();
        assert_eq!(error.path, dir);
    }
}
