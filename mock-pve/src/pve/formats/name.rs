//! Names and numbers of things: VMs, storages, volumes, users, zones.
//!
//! Must not know: whether there is such a thing.

use super::{check_format, refuse};

pub(super) fn only(text: &str, more: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

pub(super) fn label(text: &str) -> bool {
    only(text, "-") && !text.starts_with('-') && !text.ends_with('-')
}

pub(super) fn dns_name(text: &str) -> bool {
    text.split('.').all(label)
}

pub(super) fn vmid(text: &str) -> bool {
    (3..=9).contains(&text.len()) && !text.starts_with('0') && text.chars().all(|c| c.is_ascii_digit())
}

pub(super) fn storage_id(text: &str) -> bool {
    text.len() > 1
        && only(text, "-_.")
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

pub(super) fn volume_id(text: &str) -> bool {
    text.split_once(':').is_some_and(|(storage, name)| storage_id(storage) && !name.is_empty())
}

pub(super) fn boot_device(text: &str) -> bool {
    crate::world::drive::numbered(text).is_some_and(|(stem, number)| match stem {
        "ide" => number <= 3,
        "sata" => number <= 5,
        "scsi" => number <= 30,
        "virtio" | "hostpci" => number <= 15,
        "net" => number <= 31,
        "usb" => number <= 13,
        _ => false,
    })
}

/// The part of a mail address before the `@`.
pub(super) fn email_user(text: &str) -> bool {
    text.split('.').all(|part| only(part, "_+-~"))
}

pub(super) fn email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| email_user(user) && host.split('.').all(|part| only(part, "-")))
}

/// A name of more than one label, each of which begins with a letter, a digit or one of `first`.
pub(super) fn certificate_name(text: &str, first: &str) -> bool {
    let begins = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric() || first.contains(c));
    text.contains('.') && text.split('.').all(|part| begins(part) && only(part, "_-"))
}

/// `iso=some/folder`: where a storage keeps a kind of content.
pub(super) fn folder_override(text: &str) -> Result<(), String> {
    let fits = |(kind, path): (&str, &str)| {
        let known = check_format("pve-storage-content", kind);
        let dots = path.contains("..") || path.ends_with('.');
        let short = path.len() < 1023 && path.split('/').all(|part| part.len() < 255);
        known.map(|()| !path.is_empty() && !dots && short)
    };
    let kind = |kind: &str| !kind.is_empty() && kind.chars().all(|c| c.is_ascii_lowercase());
    let parts = text.split_once('=').filter(|(content, _)| kind(content));
    refuse(parts.map_or(Ok(false), fits)?, format!("invalid override '{text}'\n"))
}

pub(super) fn realm(text: &str) -> bool {
    text.len() > 1 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && only(text, ".-_")
}

pub(super) fn user_id(text: &str) -> Result<(), String> {
    if text.len() < 3 {
        return Err(format!("user name '{text}' is too short\n"));
    }
    if text.len() > 64 {
        return Err(format!("user name '{text}' is too long ({} > 64)\n", text.len()));
    }
    let name = |name: &str| !name.is_empty() && !name.contains([':', '/']) && !name.contains(char::is_whitespace);
    let fits = text.rsplit_once('@').is_some_and(|(user, of)| name(user) && realm(of));
    refuse(fits, format!("value '{text}' does not look like a valid user name\n"))
}

/// A node, and how much it is wanted.
pub(super) fn node_priority(text: &str) -> bool {
    let (node, priority) = text.split_once(':').unwrap_or((text, "0"));
    label(node) && !priority.is_empty() && priority.chars().all(|c| c.is_ascii_digit())
}

/// `1`, a target, or `source:target`.
pub(super) fn pair(text: &str, base: &str) -> Result<(), String> {
    let parts = match text.split_once(':') {
        Some((source, target)) if !source.is_empty() && !target.is_empty() && !target.contains(':') => {
            vec![source, target]
        }
        _ => vec![text],
    };
    let mut ids = parts.into_iter().filter(|_| text != "1");
    ids.try_for_each(|id| check_format(base, id))
        .map_err(|error| format!("entry '{text}' contains invalid ID - {error}\n\n"))
}

/// The guest and a number.
pub(super) fn replication_id(text: &str) -> Result<(), String> {
    let number =
        |text: &str| -> Option<u64> { text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten() };
    match text.split_once('-').and_then(|(guest, job)| Some((number(guest)?, number(job)?))) {
        Some((guest, _)) if guest >= 100 => Ok(()),
        Some(_) => Err(format!("invalid replication job id '{text}' (guest IDs < 100 are reserved)\n")),
        None => Err(format!("invalid replication job id '{text}'\n")),
    }
}
