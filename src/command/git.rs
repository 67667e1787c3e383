//! git, as far as a run commits its own two files.
//!
//! Purpose: commit exactly these paths, whatever else is staged or changed, and know afterwards whether it was done. The
//! user's own hooks, signing and credentials apply, since it is the user's own git that does it.
//! Must not know: what the files mean. Start reading at [`Repository::commit`].

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Command, CommandError, Commands, Done};

/// How long a commit may take: hooks and signing may ask a person.
const COMMIT_WITHIN: Duration = Duration::from_mins(5);

/// How long a push may take.
const PUSH_WITHIN: Duration = Duration::from_mins(5);

/// How long a question may take.
const ASK_WITHIN: Duration = Duration::from_secs(30);

/// The line in a commit's message that says which run made it: a repeated step finds its own commit by it.
pub const TRAILER: &str = "Recast-Run";

/// The repository that a folder belongs to.
#[derive(Clone, Debug)]
pub struct Repository<'a> {
    commands: &'a Commands,
    folder: PathBuf,
}

impl<'a> Repository<'a> {
    /// Of the files in `folder`.
    pub fn of(commands: &'a Commands, folder: &Path) -> Self {
        Self { commands, folder: folder.to_owned() }
    }

    fn git(&self, what: &str, words: &[&str], within: Duration) -> Command {
        let words = std::iter::once("git").chain(words.iter().copied());
        // Questions on a terminal would wait for nobody.
        Command::argv(what, words, within).in_folder(&self.folder).env("GIT_TERMINAL_PROMPT", "0")
    }

    async fn ask(&self, words: &[&str], stop: impl Future<Output = ()>) -> Result<Done, CommandError> {
        self.commands.run(&self.git(&format!("git {}", words[0]), words, ASK_WITHIN), stop).await
    }

    /// Whether the folder belongs to a repository.
    pub async fn exists(&self) -> Result<bool, CommandError> {
        match self.ask(&["rev-parse", "--is-inside-work-tree"], std::future::pending()).await {
            Ok(done) => Ok(done.stdout().trim() == "true"),
            Err(CommandError::Failed { code: Some(128), .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The commit of this run among the latest, by its trailer.
    pub async fn commit_of(&self, run: &str) -> Result<Option<String>, CommandError> {
        let format = format!("--format=%H %(trailers:key={TRAILER},valueonly,separator=%x2C)");
        let done = match self.ask(&["log", "-n", "200", &format], std::future::pending()).await {
            Ok(done) => done,
            // A repository without any commit.
            Err(CommandError::Failed { code: Some(128), .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = done.stdout().lines().filter_map(|line| line.split_once(' '));
        let found = found.filter(|(_, runs)| runs.split(',').any(|found| found.trim() == run));
        Ok(found.map(|(commit, _)| commit.to_owned()).next())
    }

    /// Whether these files differ from the last commit, or are not in it. Ignored files don't.
    pub async fn differ(&self, files: &[PathBuf]) -> Result<bool, CommandError> {
        let mut command = self.git("git status", &["status", "--porcelain", "--untracked-files=all", "--"], ASK_WITHIN);
        push(&mut command, files);
        let done = self.commands.run(&command, std::future::pending()).await?;
        Ok(!done.stdout().trim().is_empty())
    }

    /// Whether a merge, rebase, cherry-pick or revert is going on: a commit would become part of it.
    pub async fn is_busy(&self) -> Result<Option<&'static str>, CommandError> {
        let done = self.ask(&["rev-parse", "--absolute-git-dir"], std::future::pending()).await?;
        let dir = PathBuf::from(done.stdout().trim());
        let signs = [
            ("MERGE_HEAD", "a merge"),
            ("rebase-merge", "a rebase"),
            ("rebase-apply", "a rebase"),
            ("CHERRY_PICK_HEAD", "a cherry-pick"),
            ("REVERT_HEAD", "a revert"),
        ];
        Ok(signs.into_iter().find(|(file, _)| dir.join(file).exists()).map(|(_, what)| what))
    }

    /// Commits exactly these files as they are, and nothing else: what is staged beside them stays staged.
    pub async fn commit(
        &self,
        files: &[PathBuf],
        message: &str,
        run: &str,
        stop: impl Future<Output = ()>,
    ) -> Result<Done, CommandError> {
        // A file that git doesn't know yet can't be committed by its path alone: it is announced first, without content.
        let mut announce = self.git("git add", &["add", "--intent-to-add", "--"], ASK_WITHIN);
        push(&mut announce, files);
        self.commands.run(&announce, std::future::pending()).await?;
        let trailer = format!("{TRAILER}: {run}");
        let words = ["commit", "--quiet", "--only", "-m", message, "--trailer", &trailer, "--"];
        let mut commit = self.git("git commit", &words, COMMIT_WITHIN);
        push(&mut commit, files);
        self.commands.run(&commit, stop).await
    }

    /// Whether the upstream branch, as last seen, has this commit.
    pub async fn is_pushed(&self, commit: &str) -> Result<bool, CommandError> {
        match self.ask(&["merge-base", "--is-ancestor", commit, "@{upstream}"], std::future::pending()).await {
            Ok(_) => Ok(true),
            // 1 says no, 128 that there is no upstream: `push` says what is wrong with that.
            Err(CommandError::Failed { code: Some(1 | 128), .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The URL that a push goes to, without asking it; none where the branch has no remote.
    pub async fn upstream(&self) -> Result<Option<String>, CommandError> {
        match self.ask(&["ls-remote", "--get-url"], std::future::pending()).await {
            Ok(done) => Ok(Some(done.stdout().trim().to_owned()).filter(|url| !url.is_empty())),
            Err(CommandError::Failed { code: Some(128), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pushes the current branch to its upstream.
    pub async fn push(&self, stop: impl Future<Output = ()>) -> Result<Done, CommandError> {
        self.commands.run(&self.git("git push", &["push", "--quiet"], PUSH_WITHIN), stop).await
    }
}

fn push(command: &mut Command, files: &[PathBuf]) {
    if let super::Program::Argv(words) = &mut command.program {
        words.extend(files.iter().map(|file| OsString::from(file.as_os_str())));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::pending;

    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    /// git of a person that nobody configured.
    fn git(folder: &Path, words: &[&str]) -> String {
        let done = std::process::Command::new("git").args(words).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let place = Self { dir };
            let work = place.work();
            fs::create_dir(&work).unwrap();
            git(&work, &["init", "--quiet", "--initial-branch=main"]);
            for (key, value) in
                [("user.name", "A Person"), ("user.email", "a@example.org"), ("commit.gpgsign", "false")]
            {
                git(&work, &["config", key, value]);
            }
            for name in ["lab.yaml", "other.yaml"] {
                fs::write(work.join(name), "a: 1\n").unwrap();
            }
            git(&work, &["add", "."]);
            git(&work, &["commit", "--quiet", "-m", "first"]);
            place
        }

        fn work(&self) -> PathBuf {
            self.dir.path().join("work")
        }

        fn files(&self) -> Vec<PathBuf> {
            ["lab.yaml", "lab.lock"].map(|name| self.work().join(name)).to_vec()
        }
    }

    #[tokio::test]
    async fn exactly_the_named_files_are_committed_and_the_commit_is_found_again() {
        let place = Place::new();
        let work = place.work();
        let repository = Repository::of(&Commands::Real, &work);
        assert!(repository.exists().await.unwrap());
        assert!(!repository.differ(&place.files()[..1]).await.unwrap());
        fs::write(work.join("lab.yaml"), "a: 2\n").unwrap();
        fs::write(work.join("lab.lock"), "new\n").unwrap();
        fs::write(work.join("other.yaml"), "a: half done\n").unwrap();
        git(&work, &["add", "other.yaml"]);
        assert!(repository.differ(&place.files()).await.unwrap());
        assert_eq!(repository.commit_of("run-1").await.unwrap(), None);
        repository.commit(&place.files(), "feat(talos): upgrade to Talos v1.13.9", "run-1", pending()).await.unwrap();
        let commit = repository.commit_of("run-1").await.unwrap().unwrap();
        assert_eq!(commit, git(&work, &["rev-parse", "HEAD"]).trim());
        assert_eq!(git(&work, &["show", "--format=", "--name-only", "HEAD"]), "lab.lock\nlab.yaml\n");
        assert_eq!(git(&work, &["log", "-1", "--format=%s"]), "feat(talos): upgrade to Talos v1.13.9\n");
        assert_eq!(git(&work, &["status", "--porcelain"]), "M  other.yaml\n", "what was staged stays so");
        assert!(!repository.differ(&place.files()).await.unwrap());
        assert_eq!(repository.commit_of("run-2").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_push_goes_to_the_upstream_and_is_seen_there() {
        let place = Place::new();
        let work = place.work();
        let bare = place.dir.path().join("bare.git");
        git(place.dir.path(), &["init", "--quiet", "--bare", "bare.git"]);
        let repository = Repository::of(&Commands::Real, &work);
        let head = git(&work, &["rev-parse", "HEAD"]).trim().to_owned();
        assert!(!repository.is_pushed(&head).await.unwrap());
        assert_eq!(repository.upstream().await.unwrap(), None);
        let refused = repository.push(pending()).await.unwrap_err();
        assert!(refused.to_string().starts_with("git push ended with exit status: 128"), "{refused}");
        git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
        assert_eq!(repository.upstream().await.unwrap().as_deref(), bare.to_str());
        git(&work, &["push", "--quiet", "-u", "origin", "main"]);
        fs::write(work.join("lab.yaml"), "a: 3\n").unwrap();
        repository.commit(&place.files()[..1], "x", "run-1", pending()).await.unwrap();
        let commit = repository.commit_of("run-1").await.unwrap().unwrap();
        assert!(!repository.is_pushed(&commit).await.unwrap());
        repository.push(pending()).await.unwrap();
        assert!(repository.is_pushed(&commit).await.unwrap());
    }

    #[tokio::test]
    async fn a_folder_without_a_repository_and_one_in_the_middle_of_a_merge_are_told() {
        let outside = tempfile::tempdir().unwrap();
        assert!(!Repository::of(&Commands::Real, outside.path()).exists().await.unwrap());
        let place = Place::new();
        let work = place.work();
        let repository = Repository::of(&Commands::Real, &work);
        assert_eq!(repository.is_busy().await.unwrap(), None);
        fs::write(work.join(".git/MERGE_HEAD"), "x").unwrap();
        assert_eq!(repository.is_busy().await.unwrap(), Some("a merge"));
    }
}
