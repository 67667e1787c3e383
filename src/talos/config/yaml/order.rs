//! The order in which keys are written: letters behind all else, numbers by what they count.
//!
//! Rules of the library that Talos writes with. Must not know: values.

/// Whether a key stands before another one.
pub(super) fn is_before(one: &[char], other: &[char]) -> bool {
    let Some(at) = one.iter().zip(other).position(|(a, b)| a != b) else { return one.len() < other.len() };
    let (a, b) = (one[at], other[at]);
    match (a.is_alphabetic(), b.is_alphabetic()) {
        (true, true) => return a < b,
        // Behind a digit it is the other way round: `a1b` stands before `a1.b`.
        (a_letter, b_letter) if a_letter || b_letter => {
            return if at > 0 && one[at - 1].is_numeric() { a_letter } else { b_letter };
        }
        _ => {}
    }
    // A zero within a number is a digit like others; before one it says nothing.
    let within = (a == '0' || b == '0') && one[..at].iter().rev().take_while(|c| c.is_numeric()).any(|c| *c != '0');
    let start = u64::from(within);
    let ((a_number, a_end), (b_number, b_end)) = (number(one, at, start), number(other, at, start));
    if a_number != b_number {
        return a_number < b_number;
    }
    if a_end == b_end { a < b } else { a_end < b_end }
}

/// The number whose digits begin at a place, and where it ends.
fn number(chars: &[char], at: usize, start: u64) -> (u64, usize) {
    let digits = chars[at..].iter().map_while(|c| c.to_digit(10));
    digits.fold((start, at), |(number, end), digit| (number.wrapping_mul(10).wrapping_add(u64::from(digit)), end + 1))
}

#[cfg(test)]
mod tests {
    use super::is_before;

    #[test]
    fn keys_stand_as_the_real_writer_puts_them() {
        let keys = [
            ".", "_x", "0", "00", "9", "10", "A1", "B", "a", "a-b", "a.b", "a1", "a01", "a9", "a10", "ab", "b", "z-a",
            "z.a", "z/a", "z_a", "é",
        ];
        for pair in keys.windows(2) {
            let (first, second): (Vec<char>, Vec<char>) = (pair[0].chars().collect(), pair[1].chars().collect());
            assert!(is_before(&first, &second) && !is_before(&second, &first), "{pair:?}");
        }
    }
}
