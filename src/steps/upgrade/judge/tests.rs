use super::*;
use crate::talos::client::Unmet;

fn glimpse(version: &str, schematic: &str, boot: &str, stage: Life) -> Glimpse {
    let unmet = match stage {
        Life::Booting => vec![Unmet { name: "services".to_owned(), reason: "etcd not running".to_owned() }],
        _ => Vec::new(),
    };
    let ready = stage == Life::Running;
    Glimpse {
        version: version.parse().unwrap(),
        schematic: Some(schematic.into()),
        boot: boot.to_owned(),
        status: Some(MachineStatus { stage, ready, unmet }),
    }
}

fn release() -> Release {
    Release { version: "1.13.9".parse().unwrap(), schematic: "s".into(), image: "i".to_owned() }
}

#[expect(clippy::needless_pass_by_value, reason = "callers make them on the spot")]
fn standing(look: Result<Glimpse, String>, trouble: Option<Told>, time: Time) -> Standing {
    let (before, release) = (glimpse("1.12.4", "s", "1", Life::Running), release());
    let goal = Goal::Release(&release);
    judge(&Question { before: &before, goal, trouble: trouble.as_ref(), time }, &look, 60)
}

fn cause(look: Result<Glimpse, String>, trouble: Option<Told>) -> String {
    match standing(look, trouble, Time::Over) {
        Standing::Failed(cause) => {
            let member = Member { name: "a".into(), role: crate::types::Role::Worker, address: [10, 0, 0, 1].into() };
            assert!(!cause.hint(&member, Way::Written).is_empty());
            cause.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_another_boot_with_version_schematic_and_readiness_is_success() {
    assert_eq!(standing(Ok(glimpse("1.13.9", "s", "2", Life::Running)), None, Time::Left), Standing::Done);
    let waiting = |look| matches!(standing(look, None, Time::Left), Standing::Waiting(_));
    assert!(waiting(Err("refused".to_owned())));
    assert!(waiting(Ok(glimpse("1.12.4", "s", "1", Life::Upgrading))));
    assert!(waiting(Ok(glimpse("1.13.9", "s", "2", Life::Booting))));
    assert!(waiting(Ok(glimpse("1.13.9", "s", "1", Life::Running))), "no other boot");
}

#[test]
fn every_other_end_has_its_name() {
    let failed = || Some(Told::Failed("sequence failed: no space".to_owned()));
    assert_eq!(
        cause(Ok(glimpse("1.12.4", "s", "2", Life::Running)), None),
        "it fell back: it rebooted and runs Talos 1.12.4 again"
    );
    assert_eq!(
        cause(Ok(glimpse("1.12.4", "s", "2", Life::Running)), failed()),
        "it fell back: it rebooted and runs Talos 1.12.4 again; it said: sequence failed: no space"
    );
    assert_eq!(
        cause(Ok(glimpse("1.12.4", "s", "2", Life::Booting)), None),
        "it fell back: it rebooted and runs Talos 1.12.4 again, and is not ready in time: it is booting; services: \
         etcd not running"
    );
    assert_eq!(
        cause(Ok(glimpse("1.12.4", "s", "2", Life::Booting)), failed()),
        "it fell back: it rebooted and runs Talos 1.12.4 again, and is not ready in time: it is booting; services: \
         etcd not running; it said: sequence failed: no space"
    );
    assert_eq!(
        cause(Ok(glimpse("1.12.4", "t", "2", Life::Booting)), None),
        "it runs Talos 1.12.4, and is not ready within 60 s: it is booting; services: etcd not running"
    );
    assert_eq!(cause(Ok(glimpse("1.12.4", "s", "1", Life::Running)), None), "it did not reboot within 60 s");
    let busy = Some(Told::Failed("umount: device or resource busy".to_owned()));
    assert_eq!(
        cause(Ok(glimpse("1.12.4", "s", "2", Life::Running)), busy),
        "its disk is busy: umount: device or resource busy"
    );
    assert_eq!(
        cause(Err("connection refused".to_owned()), None),
        "it does not answer since it went down, for 60 s: connection refused"
    );
    assert_eq!(
        cause(Ok(glimpse("1.13.9", "s", "2", Life::Booting)), None),
        "it runs Talos 1.13.9, and is not ready within 60 s: it is booting; services: etcd not running"
    );
    assert_eq!(
        cause(Ok(glimpse("1.13.9", "t", "2", Life::Running)), None),
        "it runs Talos 1.13.9 made from schematic t, not s"
    );
    assert_eq!(cause(Ok(glimpse("1.13.0", "s", "2", Life::Running)), None), "it runs Talos 1.13.0, not 1.13.9");
    let refused = Some(Told::Refused("locked".to_owned()));
    assert_eq!(cause(Ok(glimpse("1.12.4", "s", "1", Life::Running)), refused), "it refused: locked");
}

#[test]
fn a_refusal_is_told_at_once_and_a_fallback_as_soon_as_it_is_up() {
    let refused = Some(Told::Refused("locked".to_owned()));
    let now = standing(Ok(glimpse("1.12.4", "s", "1", Life::Running)), refused, Time::Left);
    assert_eq!(now, Standing::Failed(Cause::Refused("locked".to_owned())));
    let now = standing(Ok(glimpse("1.12.4", "s", "2", Life::Running)), None, Time::Left);
    assert!(matches!(now, Standing::Failed(Cause::FellBack { missing: None, .. })));
    let booting = |time| standing(Ok(glimpse("1.12.4", "s", "2", Life::Booting)), None, time);
    assert!(matches!(booting(Time::Left), Standing::Waiting(_)), "it may come up yet");
    assert!(matches!(booting(Time::Over), Standing::Failed(cause) if !cause.leaves_it_up()));
}

#[test]
fn going_back_wants_anything_but_what_ran() {
    let before = glimpse("1.13.9", "s", "1", Life::Running);
    let of = |version: &str, schematic: &str| {
        let look = Ok(glimpse(version, schematic, "2", Life::Running));
        judge(&Question { before: &before, goal: Goal::Another, trouble: None, time: Time::Left }, &look, 60)
    };
    assert_eq!((of("1.12.4", "s"), of("1.13.9", "t")), (Standing::Done, Standing::Done));
    assert_eq!(of("1.13.9", "s"), Standing::Failed(Cause::NothingBefore));
}

#[test]
fn a_machines_own_no_is_a_gates_and_what_it_could_not_do_is_a_failure() {
    let words = || "why".to_owned();
    let running = Version::new(1, 12, 4);
    for (cause, class) in [
        (Cause::Refused(words()), Class::Refused),
        (Cause::NothingBefore, Class::Refused),
        (Cause::Image(words()), Class::Permanent),
        (Cause::Busy(words()), Class::Permanent),
        (Cause::NotRebooted { seconds: 60, reason: None }, Class::Permanent),
        (Cause::FellBack { running, missing: None, reason: None }, Class::Permanent),
    ] {
        assert_eq!(cause.class(), class, "{cause}");
    }
}

#[test]
fn a_machines_words_lead_to_the_cause() {
    use crate::talos::client::upgrade::refusal;
    let of = |words: &str| Cause::of(words, refusal(words));
    assert!(matches!(of("error validating installer image \"x\": not found"), Cause::Image(_)));
    assert!(matches!(of("pre-flight checks failed: too old"), Cause::Refused(_)));
    assert!(matches!(of("device or resource busy"), Cause::Busy(_)));
    assert!(matches!(of("cannot rollback"), Cause::NothingBefore));
}
