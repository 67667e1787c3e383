//! How many requests a run has sent, over all its processes.

use super::record::{Entry, Record};

/// The sum of what each process counted last. Of a killed process, what it sent after its last full phase is missing.
pub fn requests(records: &[Record]) -> u64 {
    let (mut earlier, mut current) = (0, 0);
    for record in records {
        match record.entry {
            Entry::Requests { sent } => current = sent,
            Entry::Resumed => {
                earlier += current;
                current = 0;
            }
            _ => {}
        }
    }
    earlier + current
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;

    #[test]
    fn processes_add_up_and_each_counts_from_zero() {
        let entries = [
            Entry::Requests { sent: 10 },
            Entry::Requests { sent: 15 },
            Entry::Closed { outcome: Outcome::Failed },
            Entry::Resumed,
            // Killed before its first count.
            Entry::Resumed,
            Entry::Requests { sent: 4 },
        ];
        let at = jiff::Timestamp::UNIX_EPOCH;
        let records: Vec<Record> = entries.into_iter().zip(0..).map(|(entry, seq)| Record { seq, at, entry }).collect();
        assert_eq!((requests(&records), requests(&[])), (19, 0));
    }
}
