//! Cross-origin rules, which the endpoint applies in place of the function.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use martlet_functions::Cors;
use martlet_gateway::{Body, Response};

/// Headers that the rules decide; what the function says about them does not count.
const OWN: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// A browser asks whether it may ask. Where there are rules, the endpoint answers that by itself.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to such a question.
pub(super) fn preflight(cors: &Cors, asked: &HeaderMap) -> Response {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    if allow(cors, asked, headers) {
        list(headers, header::ACCESS_CONTROL_ALLOW_METHODS, cors.methods.as_deref());
        list(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.as_deref());
        if let Some(age) = cors.max_age {
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age));
        }
    }
    response
}

/// Writes into an answer what the page that asked may do with it.
pub(super) fn mark(cors: &Cors, asked: &HeaderMap, headers: &mut HeaderMap) {
    for name in OWN {
        headers.remove(name);
    }
    if allow(cors, asked, headers) {
        list(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, cors.exposed.as_deref());
    }
}

/// Whether the rules know the origin; if so, says it.
fn allow(cors: &Cors, asked: &HeaderMap, headers: &mut HeaderMap) -> bool {
    let Some(origin) = asked.get(header::ORIGIN) else { return false };
    let origins = cors.origins.as_deref().unwrap_or_default();
    let anybody = origins.iter().any(|known| known == "*");
    if !anybody && !origins.iter().any(|known| known.as_bytes() == origin.as_bytes()) {
        return false;
    }
    let credentials = cors.credentials == Some(true);
    // Browsers take no star where credentials are sent.
    let told = if anybody && !credentials { HeaderValue::from_static("*") } else { origin.clone() };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, told);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    true
}

fn list(headers: &mut HeaderMap, name: HeaderName, values: Option<&[String]>) {
    if let Some(values) = values.filter(|values| !values.is_empty())
        && let Ok(value) = HeaderValue::try_from(values.join(","))
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(origin: &str) -> Cors {
        Cors {
            origins: Some(vec![origin.into()]),
            methods: Some(vec!["GET".into(), "PUT".into()]),
            headers: Some(vec!["x-a".into()]),
            exposed: Some(vec!["x-b".into(), "date".into()]),
            max_age: Some(60),
            ..Cors::default()
        }
    }

    fn asked(origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
        headers
    }

    fn told(headers: &HeaderMap, name: &str) -> Option<String> {
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_preflight_tells_the_rules_to_those_they_know() {
        let answer = preflight(&rules("https://a.example"), &asked("https://a.example"));
        let headers = answer.headers();
        assert_eq!(told(headers, "access-control-allow-origin").unwrap(), "https://a.example");
        assert_eq!(told(headers, "access-control-allow-methods").unwrap(), "GET,PUT");
        assert_eq!(told(headers, "access-control-allow-headers").unwrap(), "x-a");
        assert_eq!(told(headers, "access-control-max-age").unwrap(), "60");
        assert_eq!(told(headers, "access-control-allow-credentials"), None);
        assert!(preflight(&rules("https://a.example"), &asked("https://b.example")).headers().is_empty());
        assert!(is_preflight(&Method::OPTIONS, &asked("https://b.example")));
        assert!(
            !is_preflight(&Method::OPTIONS, &HeaderMap::new()) && !is_preflight(&Method::GET, &asked("x"))
        );
    }

    #[test]
    fn answers_carry_the_rules_and_not_what_the_function_says_of_them() {
        let mut headers = HeaderMap::new();
        headers.insert("access-control-allow-origin", HeaderValue::from_static("https://evil.example"));
        mark(&rules("*"), &asked("https://b.example"), &mut headers);
        assert_eq!(told(&headers, "access-control-allow-origin").unwrap(), "*");
        assert_eq!(told(&headers, "access-control-expose-headers").unwrap(), "x-b,date");
        let rules = Cors { credentials: Some(true), ..rules("*") };
        mark(&rules, &asked("https://b.example"), &mut headers);
        assert_eq!(told(&headers, "access-control-allow-origin").unwrap(), "https://b.example");
        assert_eq!(told(&headers, "access-control-allow-credentials").unwrap(), "true");
        mark(&rules, &HeaderMap::new(), &mut headers);
        assert_eq!(told(&headers, "access-control-allow-origin"), None);
    }
}
