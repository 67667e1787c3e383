//! Paths that lead to no object: what there is, how it is described, and how this server is.

use hyper::body::Incoming;
use serde_json::json;

use http::{StatusCode, header};

use super::answer::{self, Answer, Refusal};
use super::discovery::Groups;
use super::routes::Server;
use super::{discovery, kinds, own, swagger};
use crate::etcd::Client;

/// What is at a path.
pub(super) fn page(
    server: &Server,
    client: &Client,
    request: &http::Request<Incoming>,
    segments: &[&str],
) -> Result<Answer, Refusal> {
    let kinds = kinds::all(client);
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let aggregated = accept.split(',').find(|one| one.contains("g=apidiscovery.k8s.io")).map(|one| {
        if one.contains("v=v2beta1") {
            ("v2beta1", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")
        } else {
            ("v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        }
    });
    let found = match segments {
        ["api" | "apis"] if aggregated.is_some() => {
            let (format, kind) = aggregated.unwrap_or_default();
            let told = if segments == ["api"] { Groups::Core } else { Groups::Named };
            let value = discovery::aggregated(&kinds, told, format);
            return Ok(answer::text(StatusCode::OK, kind, format!("{value}\n")));
        }
        ["api"] => {
            let address = server.machine().see(|state| state.address().map(|address| address.to_string()));
            Some(discovery::core(&format!("{}:6443", address.unwrap_or_default())))
        }
        ["apis"] => Some(discovery::all(&kinds)),
        ["api", version] => discovery::resources(&kinds, "", version),
        ["apis", group] => discovery::one(&kinds, group),
        ["apis", group, version] => discovery::resources(&kinds, group, version),
        ["openapi", "v2"] if swagger::wants_protobuf(accept) => {
            let bytes = swagger::protobuf(&swagger::document(&kinds));
            return Ok(answer::bytes(StatusCode::OK, swagger::PROTOBUF, bytes));
        }
        ["openapi", "v2"] => Some(swagger::document(&kinds)),
        ["openapi", "v3"] => Some(discovery::documents(&kinds)),
        ["openapi", "v3", "api", version] => discovery::document(&kinds, "", version),
        ["openapi", "v3", "apis", group, version] => discovery::document(&kinds, group, version),
        [""] | [] => {
            let mut paths: Vec<String> = kinds.iter().map(|kind| format!("/apis/{}", kind.api_version())).collect();
            paths.retain(|path| path != "/apis/v1");
            paths
                .extend(kinds.iter().filter(|kind| !kind.group.is_empty()).map(|kind| format!("/apis/{}", kind.group)));
            let fixed = [
                "/api",
                "/api/v1",
                "/apis",
                "/healthz",
                "/livez",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/readyz",
                "/version",
            ];
            paths.extend(fixed.map(str::to_owned));
            paths.sort();
            paths.dedup();
            Some(json!({ "paths": paths }))
        }
        ["metrics"] => return Ok(own::metrics(client, server.release())),
        _ => None,
    };
    let inside = match segments {
        ["api", ..] => true,
        ["apis", group, ..] => kinds.iter().any(|kind| kind.group == *group),
        _ => false,
    };
    match found {
        Some(value) => Ok(answer::ok(&value)),
        None if inside => Err(Refusal::no_such_path()),
        None => Ok(Refusal::no_such_page()),
    }
}
