//! The wish that a task end.
//!
//! Purpose: who stops a task reaches the innermost part of its work that can tell of it, as a signal reaches whatever
//! handler the original has installed just then; what is around that part tidies up. Must not know: tasks, or what
//! their work is. Start at [`Stop::part`].

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::held;

/// What a part of a task says of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Words {
    /// What any task says.
    #[default]
    Task,
    /// What parts say that have a handler of their own.
    Signal,
}

impl Words {
    fn text(self) -> &'static str {
        match self {
            Self::Task => "received interrupt",
            Self::Signal => "interrupted by signal",
        }
    }
}

/// A task's wish to end, or the lack of one.
#[derive(Debug, Default)]
pub(super) struct Stop {
    asked: AtomicBool,
    killed: AtomicBool,
    /// How many parts are inside each other.
    depth: AtomicUsize,
    words: Mutex<Words>,
    woken: Notify,
}

/// A part of the work, while it runs.
struct Part<'a> {
    stop: &'a Stop,
    depth: usize,
    before: Words,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.stop.depth.fetch_sub(1, Ordering::SeqCst);
        *held(&self.stop.words) = self.before;
        // Whoever came too late for this part is heard by the one around it.
        self.stop.woken.notify_waiters();
    }
}

impl Stop {
    /// Somebody wants an end.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.woken.notify_waiters();
    }

    /// There is an end, whoever has to tidy up.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.woken.notify_waiters();
    }

    /// Whether it ended without a word.
    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// Waits until somebody wants an end and no part inside this one hears it.
    async fn reaches(&self, depth: usize) -> &'static str {
        loop {
            let woken = self.woken.notified();
            let killed = depth == 0 && self.killed.load(Ordering::SeqCst);
            if killed || (self.depth.load(Ordering::SeqCst) == depth && self.asked.swap(false, Ordering::SeqCst)) {
                return held(&self.words).text();
            }
            woken.await;
        }
    }

    /// The same for the task as a whole.
    pub(super) async fn reaches_the_task(&self) -> &'static str {
        self.reaches(0).await
    }

    fn enter(&self, words: Option<Words>) -> Part<'_> {
        let depth = self.depth.fetch_add(1, Ordering::SeqCst) + 1;
        let mut known = held(&self.words);
        let before = *known;
        *known = words.unwrap_or(before);
        Part { stop: self, depth, before }
    }

    /// Does a part of the work; `Err`: it was ended, in these words, which are those of the part around it unless it has
    /// its own.
    pub(super) async fn part<T>(&self, words: Option<Words>, part: impl Future<Output = T>) -> Result<T, &'static str> {
        let place = self.enter(words);
        tokio::select! {
            done = part => Ok(done),
            words = self.reaches(place.depth) => Err(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_innermost_part_hears_it_and_the_rest_goes_on() {
        let stop = Stop::default();
        let inner = async {
            let ended = stop.part(None, pending::<()>()).await;
            // The part around it was not ended.
            tokio::task::yield_now().await;
            ended
        };
        let (ended, ()) = tokio::join!(stop.part(Some(Words::Signal), inner), async {
            tokio::task::yield_now().await;
            stop.ask();
        });
        assert_eq!(ended, Ok(Err("interrupted by signal")));
    }

    #[tokio::test]
    async fn what_came_before_the_wait_is_heard_and_words_go_with_their_part() {
        let stop = Stop::default();
        stop.ask();
        assert_eq!(stop.part(Some(Words::Signal), pending::<()>()).await, Err("interrupted by signal"));
        stop.ask();
        assert_eq!(stop.reaches_the_task().await, "received interrupt");
    }

    #[tokio::test]
    async fn a_node_without_power_ends_the_task_and_no_part_of_it() {
        let stop = Stop::default();
        stop.kill();
        tokio::select! {
            biased;
            ended = stop.part(Some(Words::Task), pending::<()>()) => panic!("a part tells of it: {ended:?}"),
            words = stop.reaches_the_task() => assert_eq!(words, "received interrupt"),
        }
    }
}
