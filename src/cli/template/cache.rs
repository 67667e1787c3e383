//! `recast template cache`: the image files that are kept here, and how to be rid of them.

use std::fmt::Write as _;

use crate::cli::args::{Global, TemplateCache};
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::image::{Cache, Kept};
use crate::plan::check::size;
use crate::report::Document;
use crate::report::document::Ending;

/// `recast template cache`. Needs no profile, and deletes nothing but what can be fetched again.
pub(super) fn cache(global: &Global, asked: &TemplateCache, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let cache = Cache::new(global.cache_dir.clone().unwrap_or_else(|| surroundings.place.env.cache_dir()));
    let unread =
        |error: crate::image::FetchError| Stop::because(ExitCode::Failed, "the image cache can't be read", &error);
    match asked {
        TemplateCache::List => {
            let kept = cache.list().map_err(unread)?;
            let bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
            let mut text = lines(&kept, "");
            if !kept.is_empty() {
                let _ = writeln!(text, "{} in all, {} at most", size(bytes), size(cache.limit()));
            }
            Ok(answer(&kept, ExitCode::Done, text))
        }
        TemplateCache::Prune { to, dry_run } => {
            let doomed = cache.beyond(to.map_or(0, |mib| mib << 20)).map_err(unread)?;
            if doomed.is_empty() {
                return Ok(answer(&doomed, ExitCode::Done, "there is nothing to prune\n".to_owned()));
            }
            if *dry_run {
                return Ok(answer(&doomed, ExitCode::Pending, lines(&doomed, "would be deleted: ")));
            }
            cache.remove(&doomed).map_err(unread)?;
            Ok(answer(&doomed, ExitCode::Done, lines(&doomed, "deleted: ")))
        }
    }
}

fn lines(kept: &[Kept], what: &str) -> String {
    let mut text = String::new();
    for kept in kept {
        let name = kept.url.as_deref().unwrap_or("of an unknown address");
        let _ = writeln!(
            text,
            "{what}{}  {:>9}  used {}  {name}",
            &kept.sha256.to_string()[..12],
            size(kept.bytes),
            kept.used
        );
    }
    text
}

fn answer(kept: &[Kept], code: ExitCode, text: String) -> Answer {
    let ending = if code == ExitCode::Pending { Ending::Pending } else { Ending::Done };
    let mut document = Document::of_verb("template", None, ending);
    document.extra.insert("images".to_owned(), serde_json::to_value(kept).unwrap_or_default());
    Answer { code, document, text }
}
