//! What the README says is so.

use recast::exit::ExitCode;

const README: &str = include_str!("../../README.md");

#[test]
fn the_exit_codes_are_the_programs() {
    for (code, meaning) in ExitCode::TABLE {
        let number = *code as u8;
        assert!(
            README.contains(&format!("| {number} | {meaning} |")),
            "the README lacks exit code {number}: {meaning}"
        );
    }
}
