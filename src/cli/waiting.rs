//! What is said while something outside takes its time.

use std::time::Duration;

use super::console::Console;

/// When something is said.
#[derive(Clone, Copy)]
struct Pace {
    /// An answer that comes sooner needs no words.
    soon: Duration,
    /// How often it is said that it still goes on.
    again: Duration,
}

const PACE: Pace = Pace { soon: Duration::from_secs(3), again: Duration::from_secs(30) };

/// Waits for the factory. What nobody asked for lately it builds first, which takes up to minutes.
pub(super) async fn patiently<T>(what: &str, answer: impl Future<Output = T>) -> T {
    telling(what, answer, PACE, |text| Console::of_process().tell(text)).await
}

async fn telling<T>(what: &str, answer: impl Future<Output = T>, pace: Pace, mut tell: impl FnMut(&str)) -> T {
    // Boxed: what waits for it stays small.
    let mut answer = Box::pin(answer);
    let begun = tokio::time::Instant::now();
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            answered = &mut answer => return answered,
            () = tokio::time::sleep(if told { pace.again } else { pace.soon }) => {}
        }
        if told {
            tell(&format!("the factory is still building {what}, for {} s now\n", begun.elapsed().as_secs()));
        } else {
            tell(&format!("the factory is building {what}: this can take some minutes\n"));
        }
        told = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_factory_that_builds_is_told_of_and_a_quick_answer_is_not() {
        let mut said = Vec::new();
        let quick = telling("it", std::future::ready(2), PACE, |text| said.push(text.to_owned())).await;
        assert!(quick == 2 && said.is_empty());
        let (answer, answered) = tokio::sync::oneshot::channel();
        let mut answer = Some(answer);
        let pace = Pace { soon: Duration::ZERO, again: Duration::ZERO };
        let slow = telling("it", answered, pace, |text| {
            said.push(text.to_owned());
            // It is done once it was said twice.
            if said.len() == 2 {
                answer.take().unwrap().send(40).unwrap();
            }
        });
        assert_eq!(slow.await, Ok(40));
        assert_eq!(said[0], "the factory is building it: this can take some minutes\n");
        assert!(said[1].starts_with("the factory is still building it, for "), "{said:?}");
    }
}
