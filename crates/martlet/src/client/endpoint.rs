//! Where the server is.

use std::fmt;

/// The default address of `martlet up`.
const DEFAULT: &str = "http://127.0.0.1:4566";

/// The address of a server, and who named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    origin: &'static str,
}

/// Why an address was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("{url:?} ({origin}) is https; Martlet serves plain HTTP: use http://")]
    Tls { url: String, origin: &'static str },
    #[error("{url:?} ({origin}) is not the address of a server; it takes http://HOST:PORT")]
    Form { url: String, origin: &'static str },
}

impl Endpoint {
    /// The address by flag, `MARTLET_ENDPOINT`, `AWS_ENDPOINT_URL`, or the default one.
    ///
    /// # Errors
    /// The first of them that is set and no address.
    pub(crate) fn find(
        flag: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, EndpointError> {
        let set = |name| variable(name).filter(|text| !text.is_empty());
        if let Some(url) = flag {
            return Self::parse(url, "--endpoint");
        }
        if let Some(url) = set("MARTLET_ENDPOINT") {
            return Self::parse(&url, "MARTLET_ENDPOINT");
        }
        if let Some(url) = set("AWS_ENDPOINT_URL") {
            return Self::parse(&url, "AWS_ENDPOINT_URL");
        }
        Self::parse(DEFAULT, "the default")
    }

    fn parse(url: &str, origin: &'static str) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form { url: url.to_owned(), origin };
        if url.starts_with("https://") {
            return Err(EndpointError::Tls { url: url.to_owned(), origin });
        }
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The colons of an IPv6 address stand between brackets.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| form())?),
            _ => (rest, 80),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) || (host.contains(':') && !host.starts_with('[')) {
            return Err(form());
        }
        Ok(Self { host: host.to_owned(), port, origin })
    }

    /// Who named it: a flag, a variable or the default.
    pub(crate) fn origin(&self) -> &'static str {
        self.origin
    }

    /// What the `Host` header says.
    pub(crate) fn authority(&self) -> String {
        if self.port == 80 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The host as a resolver takes it: an IPv6 address without its brackets.
    pub(crate) fn resolvable(&self) -> (&str, u16) {
        (self.host.trim_start_matches('[').trim_end_matches(']'), self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_then_our_variable_then_the_aws_one() {
        let variable = |name: &str| match name {
            "MARTLET_ENDPOINT" => Some("http://ours:1".to_owned()),
            "AWS_ENDPOINT_URL" => Some("http://theirs:2/".to_owned()),
            _ => None,
        };
        assert_eq!(Endpoint::find(Some("flag:3"), variable).unwrap().to_string(), "http://flag:3");
        assert_eq!(Endpoint::find(None, variable).unwrap().to_string(), "http://ours:1");
        let theirs = |name: &str| variable(name).filter(|_| name != "MARTLET_ENDPOINT");
        assert_eq!(Endpoint::find(None, theirs).unwrap().to_string(), "http://theirs:2");
        assert_eq!(Endpoint::find(None, |_| None).unwrap().to_string(), DEFAULT);
        assert_eq!(Endpoint::find(None, |_| Some(String::new())).unwrap().to_string(), DEFAULT);
    }

    #[test]
    fn addresses_are_http_host_and_port() {
        let parse = |url| Endpoint::parse(url, "--endpoint");
        assert_eq!(parse("http://[::1]:4566").unwrap().resolvable(), ("::1", 4566));
        assert_eq!(parse("http://[::1]").unwrap().port, 80);
        assert_eq!(parse("http://example").unwrap().authority(), "example");
        assert!(matches!(parse("https://x:1"), Err(EndpointError::Tls { .. })));
        for wrong in ["", "http://", ":80", "http://a b:1", "http://x:port", "http://x:1/path", "::1:80"] {
            assert!(matches!(parse(wrong), Err(EndpointError::Form { .. })), "{wrong:?}");
        }
    }
}
