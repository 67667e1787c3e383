//! In what form documents are sent: JSON for programs, with line breaks for people, or YAML (apiserver,
//! endpoints/handlers/negotiation).

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;

use super::answer::Answer;
use super::ask::parse_query;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// With line breaks: who asks for it, and programs that people sit before.
    Pretty,
    Yaml,
}

/// In what form a request wants its answer.
pub(super) fn wanted(request: &http::Request<Incoming>) -> Form {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let query = parse_query(request.uri().query().unwrap_or_default());
    let streams = ["watch", "follow"].iter().any(|name| query.get(*name).is_some_and(|value| value != "false"));
    let agent = header(header::USER_AGENT);
    let pretty = match query.get("pretty").map(String::as_str) {
        None | Some("") => ["curl", "Wget", "Mozilla/5.0"].iter().any(|one| agent.starts_with(one)),
        Some(asked) => ["1", "t", "T", "true", "TRUE", "True"].contains(&asked),
    };
    match of(header(header::ACCEPT)) {
        _ if streams => Form::Json,
        Some(Form::Json) if pretty => Form::Pretty,
        form => form.unwrap_or(Form::Json),
    }
}

/// In what form documents are wanted; `None`: in none that there is.
pub(super) fn of(accept: &str) -> Option<Form> {
    let types = accept.split(',').map(|one| one.split(';').next().unwrap_or_default().trim());
    let mut known = types.filter_map(|one| match one {
        // Who can read protobuf is answered in JSON all the same, and reads it.
        "" | "*/*" | "*" | "application/*" | "application/json" | "application/vnd.kubernetes.protobuf" => {
            Some(Form::Json)
        }
        "application/yaml" => Some(Form::Yaml),
        _ => None,
    });
    known.next()
}

/// A JSON document as YAML, or with line breaks for people to read; anything else stays as it is.
pub(super) async fn rewritten(answer: Answer, form: Form) -> Answer {
    let is_json = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if form == Form::Json || !is_json {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
        return Response::from_parts(parts, Full::new(bytes).boxed());
    };
    let (kind, text) = match form {
        Form::Yaml => ("application/yaml", serde_saphyr::to_string(&value).unwrap_or_default()),
        _ => ("application/json", format!("{value:#}\n")),
    };
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Response::from_parts(parts, Full::new(Bytes::from(text)).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_there_is_counts() {
        assert_eq!(of(""), Some(Form::Json));
        assert_eq!(of("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Some(Form::Json));
        assert_eq!(of("application/xml, application/yaml;q=0.9"), Some(Form::Yaml));
        assert_eq!(of("application/xml"), None);
    }
}
