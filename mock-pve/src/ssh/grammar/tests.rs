use super::*;

fn words(text: &str) -> Vec<String> {
    let list = parse(text).unwrap();
    let command = &list[0].1.commands[0];
    let plain = |word: &Word| match word.as_slice() {
        [] => String::new(),
        [Part::Text(text)] => text.clone(),
        other => format!("{other:?}"),
    };
    command.words.iter().map(plain).collect()
}

#[test]
fn quotes_keep_words_together() {
    assert_eq!(
        words(r#"qm set 9000 --scsi0 'a b,c=d' "x\"y$" z\ w"""#),
        ["qm", "set", "9000", "--scsi0", "a b,c=d", "x\"y$", "z w"]
    );
    assert_eq!(words("echo a#b # comment"), ["echo", "a#b"]);
}

#[test]
fn lists_pipes_and_redirections() {
    let list = parse("xz -dc </tmp/a | dd of=/dev/x bs=1M 2>&1 && sync; ! test -e /x || { echo no >&2; }").unwrap();
    assert_eq!(
        list.iter().map(|(link, _)| *link).collect::<Vec<_>>(),
        [Link::Always, Link::And, Link::Always, Link::Or]
    );
    assert_eq!(list[0].1.commands.len(), 2);
    assert_eq!(list[0].1.commands[1].redirections, [Redirection { descriptor: 2, target: Target::Same(1) }]);
    assert!(list[2].1.negated && list[3].1.commands[0].compound.is_some());
    let assigned = parse("V=$(pvesm path \"$X\") LC_ALL=C cat $V").unwrap();
    assert_eq!(assigned[0].1.commands[0].assignments.len(), 2);
    assert_eq!(parse("a\nb;\nc").unwrap().len(), 3);
}

#[test]
fn what_is_not_understood_is_a_syntax_error() {
    for (text, expected) in [
        ("a &", "syntax error near unexpected token `&'"),
        ("cat <<EOF", "syntax error near unexpected token `<<'"),
        ("| a", "syntax error near unexpected token `|'"),
        ("a &&", "syntax error: unexpected end of file"),
        ("echo 'x", "unexpected EOF while looking for matching `''"),
        ("a ) b", "syntax error near unexpected token `)'"),
        ("( a", "syntax error: unexpected end of file"),
        ("a > ", "syntax error near unexpected token `newline'"),
        ("if true; then echo x", "syntax error: unexpected end of file"),
        ("if true; fi", "syntax error near unexpected token `fi'"),
        ("done", "syntax error near unexpected token `done'"),
        ("for x in a b; echo x; done", "syntax error near unexpected token `echo'"),
        ("f() echo x", "syntax error near unexpected token `echo'"),
        ("echo `date`", "syntax error near unexpected token ``'"),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
    }
    for nested in ["(", "$(", "${a:-", "a() ", "{ ", "if "] {
        assert_eq!(parse(&nested.repeat(100_000)).unwrap_err().to_string(), "memory exhausted", "{nested}");
    }
}
