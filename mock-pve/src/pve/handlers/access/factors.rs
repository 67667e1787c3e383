//! `/access/tfa`, `/access/users/{userid}/tfa`: second factors.
//!
//! Time-based codes and recovery keys are asked for at the login; the rest needs what no double has. Rules after Proxmox
//! VE 8.4 (PVE/API2/TFA.pm and the crate proxmox-tfa).

use aws_lc_rs::hmac;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::{no_user, realm_of};
use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Sections;

type Object = Map<String, Value>;

/// Where the factors of all users are kept: user → id → factor.
const FILE: &str = "tfa";
const RECOVERY: &str = "recovery";
/// How many recovery keys are made.
const KEYS: usize = 10;

fn text<'a>(entry: &'a Object, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn of<'a>(state: &'a State, user: &str) -> impl Iterator<Item = (&'a String, &'a Object)> {
    let own = state.sections.get(FILE).and_then(|users| users.get(user));
    own.into_iter().flatten().filter_map(|(id, factor)| Some((id, factor.as_object()?)))
}

fn is_on(factor: &Object) -> bool {
    factor.get("enable") != Some(&json!(0))
}

/// What is told of a factor; nothing of its secret.
fn told(id: &str, factor: &Object) -> Value {
    let mut shown = factor.clone();
    shown.retain(|key, _| ["type", "description", "created", "enable"].contains(&key.as_str()));
    shown.insert("id".to_owned(), json!(id));
    Value::Object(shown)
}

/// The original's order: recovery keys, then the rest.
fn all(state: &State, user: &str) -> Vec<Value> {
    let mut list: Vec<(&String, &Object)> = of(state, user).collect();
    list.sort_by_key(|(id, factor)| (*id != RECOVERY, factor.get("created").and_then(Value::as_u64)));
    list.into_iter().map(|(id, factor)| told(id, factor)).collect()
}

/// `GET /access/tfa`
pub(in crate::pve) fn factors(call: &Call) -> Result {
    let state = call.world.state();
    let rights = ["User.Modify", "Sys.Audit"];
    let sees = |user: &str| {
        let groups = state.access.users.get(user).into_iter().flat_map(|user| &user.groups);
        user == call.caller.identity
            || state.may_any(&call.caller, "/access/groups", &rights)
            || groups.into_iter().any(|group| state.may_any(&call.caller, &format!("/access/groups/{group}"), &rights))
    };
    let users = state.sections.get(FILE).into_iter().flatten().map(|(user, _)| user).filter(|user| sees(user));
    Ok(users.map(|user| json!({"userid": user, "entries": all(&state, user)})).collect::<Vec<_>>().into())
}

/// `GET /access/tfa/{userid}`
pub(in crate::pve) fn factors_of(call: &Call) -> Result {
    Ok(all(&call.world.state(), call.text("userid")).into())
}

/// `GET /access/tfa/{userid}/{id}`
pub(in crate::pve) fn factor(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("id");
    let found = of(&state, call.text("userid")).find(|(known, _)| *known == id);
    let found = found.map(|(id, factor)| told(id, factor));
    Ok(found.ok_or_else(|| Refusal::NotFound(format!("No such tfa entry '{id}'\n")))?.into())
}

/// `GET /access/users/{userid}/tfa`
pub(in crate::pve) fn factor_types(call: &Call) -> Result {
    let user = call.text("userid");
    let realm = realm_of(user);
    let state = call.world.state();
    if !state.access.realms.contains_key(realm) {
        return Err(Refusal::failed(format!("auth domain '{realm}' does not exist\n")));
    }
    let mut kinds: Vec<&str> = of(&state, user).map(|(_, factor)| text(factor, "type")).collect();
    kinds.sort_unstable();
    kinds.dedup();
    Ok(match kinds.first() {
        _ if call.params.is_on("multiple") => json!({"user": kinds}),
        Some(first) => json!({"user": first}),
        None => json!({}),
    }
    .into())
}

/// `PUT /access/users/{userid}/unlock-tfa`: nobody is ever locked out.
pub(in crate::pve) fn unlock_factors(_: &Call) -> Result {
    Ok(json!(0).into())
}

/// Whoever isn't root says his own password once more.
fn confirm(call: &Call, state: &State) -> Rule<()> {
    let user = call.text("userid");
    if !state.access.users.contains_key(user) {
        return Err(no_user(user));
    }
    if call.caller.is_root() {
        return Ok(());
    }
    if user == "root@pam" {
        return Err(Refusal::forbidden(""));
    }
    let Some(password) = call.params.text("password") else {
        return Err(Refusal::param("password", "password is required to modify user"));
    };
    let own = state.access.users.get(&call.caller.identity);
    if own.is_some_and(|own| own.has_password(password)) {
        Ok(())
    } else {
        Err(Refusal::failed("invalid credentials\n"))
    }
}

fn refuse<T>(text: &str) -> Rule<T> {
    Err(Refusal::failed(format!("{text}\n")))
}

/// `POST /access/tfa/{userid}`
pub(in crate::pve) fn add_factor(call: &Call) -> Result {
    let mut state = call.world.state();
    confirm(call, &state)?;
    let user = call.text("userid").to_owned();
    let given = |key: &str| call.params.text(key);
    let kind = call.text("type");
    let now = call.world.clock().unix();
    let mut factor = json!({"type": kind, "created": now, "description": ""});
    let mut answer = json!({});
    let id = match kind {
        "totp" => {
            if given("challenge").is_some() {
                return refuse("'challenge' parameter is invalid for 'totp' entries");
            }
            let Some(description) = given("description") else {
                return refuse("'description' is required for new entries");
            };
            let (Some(uri), Some(code)) = (given("totp"), given("value")) else {
                return refuse("'totp' type requires both 'totp' and 'value' parameters");
            };
            if !Totp::parse(uri)?.accepts(code, now) {
                return refuse("failed to verify TOTP challenge");
            }
            factor["description"] = json!(description);
            factor["totp"] = json!(uri);
            state.rng.uuid()
        }
        RECOVERY => {
            if ["totp", "value", "challenge"].iter().any(|key| given(key).is_some()) {
                return refuse("generating recovery tokens does not allow additional parameters");
            }
            if of(&state, &user).any(|(id, _)| id == RECOVERY) {
                return refuse("user already has recovery keys");
            }
            let mut key = || {
                let hex = format!("{:016x}", state.rng.draw());
                [&hex[..4], &hex[4..8], &hex[8..12], &hex[12..]].join("-")
            };
            let keys: Vec<String> = (0..KEYS).map(|_| key()).collect();
            answer["recovery"] = json!(keys);
            factor["keys"] = json!(keys);
            RECOVERY.to_owned()
        }
        "yubico" => {
            let realm = realm_of(&user);
            let set = state.access.realms.get(realm).and_then(|realm| realm.get("tfa")?.as_str());
            return match set {
                None => refuse(&format!("no yubico otp configuration available for realm {realm}")),
                Some(tfa) if !tfa.contains("yubico") => refuse("realm is not setup for Yubico OTP"),
                Some(_) => refuse("Invalid response from server: 500 Can't connect"),
            };
        }
        kind => {
            if given("totp").is_some() {
                return refuse(&format!("'totp' parameter is invalid for '{kind}' entries"));
            }
            return refuse(&format!("no {kind} configuration available"));
        }
    };
    answer["id"] = json!(id);
    let users = state.sections.entry(FILE.to_owned()).or_default();
    users.entry(user.clone()).or_default().insert(id, factor);
    if let Some(known) = state.access.users.get_mut(&user) {
        known.details.insert("keys".to_owned(), "x".to_owned());
    }
    Ok(answer.into())
}

fn no_entry() -> Refusal {
    Refusal::failed("no such entry\n")
}

fn own<'a>(users: &'a mut Sections, call: &Call) -> Option<&'a mut Object> {
    users.get_mut(call.text("userid"))
}

/// `PUT /access/tfa/{userid}/{id}`
pub(in crate::pve) fn update_factor(call: &Call) -> Result {
    let mut state = call.world.state();
    confirm(call, &state)?;
    let users = state.sections.entry(FILE.to_owned()).or_default();
    let factor = own(users, call).and_then(|own| own.get_mut(call.text("id"))?.as_object_mut());
    let factor = factor.ok_or_else(no_entry)?;
    if let Some(description) = call.params.text("description") {
        factor.insert("description".to_owned(), json!(description));
    }
    match call.params.text("enable") {
        Some("0") => drop(factor.insert("enable".to_owned(), json!(0))),
        Some(_) => drop(factor.remove("enable")),
        None => {}
    }
    Ok(().into())
}

/// `DELETE /access/tfa/{userid}/{id}`
pub(in crate::pve) fn delete_factor(call: &Call) -> Result {
    let mut state = call.world.state();
    confirm(call, &state)?;
    let user = call.text("userid").to_owned();
    let users = state.sections.entry(FILE.to_owned()).or_default();
    let own = own(users, call).ok_or_else(no_entry)?;
    own.remove(call.text("id")).ok_or_else(no_entry)?;
    if own.is_empty() {
        users.remove(&user);
        if let Some(known) = state.access.users.get_mut(&user) {
            known.details.remove("keys");
        }
    }
    Ok(().into())
}

/// What a user is asked for beside his password; nothing: no more.
pub(super) fn challenge(state: &State, user: &str) -> Option<String> {
    let on: Vec<&Object> = of(state, user).map(|(_, factor)| factor).filter(|factor| is_on(factor)).collect();
    let mut asked = Object::new();
    if on.iter().any(|factor| text(factor, "type") == "totp") {
        asked.insert("totp".to_owned(), json!(true));
    }
    let keys = on.iter().find_map(|factor| factor.get("keys")?.as_array());
    if let Some(keys) = keys {
        let left = keys.iter().enumerate().filter(|(_, key)| !key.is_null()).map(|(at, _)| json!(at));
        asked.insert(RECOVERY.to_owned(), left.collect());
    }
    (!asked.is_empty()).then(|| Value::Object(asked).to_string())
}

/// Whether an answer (`totp:123456`, `recovery:…`) is right; a recovery key is used up by it.
pub(super) fn answers(state: &mut State, user: &str, answer: &str, now: u64) -> bool {
    let Some((kind, value)) = answer.split_once(':') else { return false };
    match kind {
        "totp" => of(state, user)
            .filter(|(_, factor)| is_on(factor))
            .any(|(_, factor)| Totp::parse(text(factor, "totp")).is_ok_and(|totp| totp.accepts(value, now))),
        RECOVERY => {
            let own = state.sections.get_mut(FILE).and_then(|users| users.get_mut(user));
            let keys = own.and_then(|own| own.get_mut(RECOVERY)?.get_mut("keys")?.as_array_mut());
            let key = keys.into_iter().flatten().find(|key| key.as_str() == Some(value));
            key.map(|key| *key = Value::Null).is_some()
        }
        _ => false,
    }
}

/// A generator of codes that change with time (RFC 6238), as an `otpauth://` URI describes it.
struct Totp {
    secret: Vec<u8>,
    digits: u32,
    period: u64,
    algorithm: hmac::Algorithm,
}

/// RFC 4648, without padding.
fn base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut kept, mut bits) = (Vec::new(), 0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c.to_ascii_uppercase() {
            letter @ b'A'..=b'Z' => letter - b'A',
            digit @ b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        kept = (kept << 5) | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((kept >> bits) & 0xff).ok()?);
            kept &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

impl Totp {
    fn parse(uri: &str) -> Rule<Self> {
        let Some(rest) = uri.strip_prefix("otpauth://totp/") else { return refuse("not an otpauth uri") };
        let Some((_, query)) = rest.split_once('?') else { return refuse("missing '?' in otp uri") };
        let mut totp =
            Self { secret: Vec::new(), digits: 6, period: 30, algorithm: hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY };
        for part in query.split('&') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            let number = |name: &str| {
                let wrong = || Refusal::failed(format!("failed to parse value '{name}'\n"));
                value.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(wrong)
            };
            match key {
                "secret" => match base32(&value) {
                    Some(secret) => totp.secret = secret,
                    None => return refuse("failed to decode otp secret in otpauth url"),
                },
                "digits" => totp.digits = number("digits")?.min(9),
                "period" => totp.period = u64::from(number("period")?),
                "algorithm" => {
                    totp.algorithm = match &*value {
                        "SHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                        "SHA256" => hmac::HMAC_SHA256,
                        "SHA512" => hmac::HMAC_SHA512,
                        _ => return refuse("failed to parse value 'algorithm'"),
                    }
                }
                "issuer" => {}
                other => return refuse(&format!("unknown otpauth uri parameter: '{other}'")),
            }
        }
        if totp.secret.is_empty() { refuse("missing secret in otpauth url") } else { Ok(totp) }
    }

    /// The code of a period.
    fn code(&self, count: u64) -> String {
        let key = hmac::Key::new(self.algorithm, &self.secret);
        let tag = hmac::sign(&key, &count.to_be_bytes());
        let bytes = tag.as_ref();
        let at = bytes.last().map_or(0, |last| usize::from(last & 0x0f));
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes);
        let code = (word & 0x7fff_ffff) % 10_u32.pow(self.digits);
        format!("{code:0width$}", width = usize::try_from(self.digits).unwrap_or(6))
    }

    /// Whether a code is that of now, or of the period before or after.
    fn accepts(&self, code: &str, now: u64) -> bool {
        let count = now / self.period;
        (count.saturating_sub(1)..=count + 1).any(|count| self.code(count) == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B: the secret is `12345678901234567890`.
        let uri = "otpauth://totp/lab:root?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&digits=8&issuer=lab";
        let totp = Totp::parse(uri).unwrap();
        for (time, code) in [(59, "94287082"), (1_111_111_109, "07081804"), (20_000_000_000, "65353130")] {
            assert_eq!(totp.code(time / 30), code);
            assert!(totp.accepts(code, time + 30) && !totp.accepts(code, time + 90), "{time}");
        }
        for (uri, text) in [
            ("http://x", "not an otpauth uri"),
            ("otpauth://totp/x", "missing '?' in otp uri"),
            ("otpauth://totp/x?digits=6", "missing secret in otpauth url"),
            ("otpauth://totp/x?secret=1", "failed to decode otp secret in otpauth url"),
            ("otpauth://totp/x?secret=GE&colour=1", "unknown otpauth uri parameter: 'colour'"),
        ] {
            assert_eq!(Totp::parse(uri).err().map(|refusal| refusal.text()).as_deref(), Some(text), "{uri}");
        }
    }
}
