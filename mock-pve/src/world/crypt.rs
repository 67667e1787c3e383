//! Passwords as a system keeps them.
//!
//! Purpose: SHA-256 crypt (`$5$…`), in which a cloud-init password is stored. Must not know: whose password it is. Start
//! at [`encrypted`].

use sha2::{Digest as _, Sha256};

const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// In which order the sum's bytes are written.
const ORDER: [[usize; 3]; 10] = [
    [0, 10, 20],
    [21, 1, 11],
    [12, 22, 2],
    [3, 13, 23],
    [24, 4, 14],
    [15, 25, 5],
    [6, 16, 26],
    [27, 7, 17],
    [18, 28, 8],
    [9, 19, 29],
];

/// A password as it is stored, unless it is stored like that already.
pub(super) fn encrypted(password: &str, salt: &str) -> String {
    if is_encrypted(password) {
        return password.to_owned();
    }
    format!("$5${salt}${}", written(&sum(password.as_bytes(), salt.as_bytes())))
}

/// A salt of eight letters from a random text.
pub(super) fn salt_from(text: &str) -> String {
    let sum = Sha256::digest(text.as_bytes());
    sum.iter().take(8).map(|byte| char::from(LETTERS[usize::from(byte & 63)])).collect()
}

/// `$5$salt$…` and the like.
fn is_encrypted(text: &str) -> bool {
    let kinds = ["$1$", "$5$", "$6$", "$2a$", "$2y$"];
    kinds.iter().any(|kind| {
        text.strip_prefix(kind)
            .and_then(|rest| rest.split_once('$'))
            .is_some_and(|(salt, sum)| !salt.is_empty() && !sum.is_empty())
    })
}

/// The first bytes of a repeated text.
fn repeated(text: &[u8], length: usize) -> Vec<u8> {
    text.iter().copied().cycle().take(length).collect()
}

fn sum(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let both: [u8; 32] = Sha256::digest([password, salt, password].concat()).into();
    let mut first = Sha256::new();
    first.update(password);
    first.update(salt);
    first.update(repeated(&both, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &both[..] } else { password });
        bits >>= 1;
    }
    let mut sum: [u8; 32] = first.finalize().into();
    let words = Sha256::digest(password.repeat(password.len()));
    let words = repeated(&words, password.len());
    let salts = Sha256::digest(salt.repeat(16 + usize::from(sum[0])));
    let salts = repeated(&salts, salt.len());
    for round in 0..5000 {
        let mut next = Sha256::new();
        next.update(if round % 2 == 1 { &words[..] } else { &sum[..] });
        if round % 3 != 0 {
            next.update(&salts);
        }
        if round % 7 != 0 {
            next.update(&words);
        }
        next.update(if round % 2 == 1 { &sum[..] } else { &words[..] });
        sum = next.finalize().into();
    }
    sum
}

fn written(sum: &[u8; 32]) -> String {
    let mut text = String::new();
    let mut write = |bytes: [u8; 3], letters: usize| {
        let mut bits = (usize::from(bytes[0]) << 16) | (usize::from(bytes[1]) << 8) | usize::from(bytes[2]);
        for _ in 0..letters {
            text.push(char::from(LETTERS[bits & 63]));
            bits >>= 6;
        }
    };
    for group in ORDER {
        write(group.map(|at| sum[at]), 4);
    }
    write([0, sum[31], sum[30]], 3);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_every_other_system() {
        assert_eq!(
            encrypted("Hello world!", "saltstring"),
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
        );
        let kept = "$6$abc$def";
        assert_eq!(encrypted(kept, "x"), kept);
        assert!(encrypted("$6$abc", "x").starts_with("$5$x$"));
        assert_eq!(salt_from("a").len(), 8);
    }
}
