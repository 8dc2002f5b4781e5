//! How a refusal is spelled, also for callers that speak to a service which is not served here: they can read the
//! refusal only in the protocol that they speak.

use super::model::Protocol;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use martlet_identity::Spelling;

/// The protocols that errors are written in; more than requests are read in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A JSON body, the code in a header.
    RestJson,
    /// A JSON body with the code in it.
    AwsJson {
        /// The content type, which tells 1.0 from 1.1.
        content_type: &'static str,
    },
    /// XML as STS, IAM and SNS write it.
    Query,
    /// XML as S3 writes it.
    RestXml,
}

impl From<Protocol> for Dialect {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::RestJson => Self::RestJson,
            Protocol::AwsJson { content_type } => Self::AwsJson { content_type },
        }
    }
}

impl Dialect {
    /// What a request whose service is not known yet seems to speak.
    pub(crate) fn guess(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text(CONTENT_TYPE) {
            "application/x-amz-json-1.0" => Self::AwsJson { content_type: "application/x-amz-json-1.0" },
            "application/x-amz-json-1.1" => Self::AwsJson { content_type: "application/x-amz-json-1.1" },
            _ if headers.contains_key("x-amz-target") => {
                Self::AwsJson { content_type: "application/x-amz-json-1.1" }
            }
            form if form.starts_with("application/x-www-form-urlencoded") => Self::Query,
            _ if text(AUTHORIZATION).contains("/s3/aws4_request") => Self::RestXml,
            _ => Self::RestJson,
        }
    }

    /// How it spells the codes of refused signatures.
    pub(crate) fn spelling(self) -> Spelling {
        match self {
            Self::RestJson | Self::AwsJson { .. } => Spelling::Json,
            Self::Query | Self::RestXml => Spelling::Query,
        }
    }
}

/// An error as the XML protocols write it.
pub(super) fn xml(dialect: Dialect, code: &str, message: &str, server: bool, request_id: &str) -> String {
    // These protocols name the same errors without the word.
    let (code, message) = (escape(code.strip_suffix("Exception").unwrap_or(code)), escape(message));
    match dialect {
        Dialect::RestXml => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <RequestId>{request_id}</RequestId></Error>"
        ),
        _ => {
            let side = if server { "Receiver" } else { "Sender" };
            format!(
                "<ErrorResponse><Error><Type>{side}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
                 <RequestId>{request_id}</RequestId></ErrorResponse>"
            )
        }
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // What XML 1.0 cannot carry at all.
            char if char.is_control() && !matches!(char, '\t' | '\n' | '\r') => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_of_other_services_are_answered_in_their_protocol() {
        let guess = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Dialect::guess(&headers)
        };
        assert_eq!(guess("content-type", "application/x-www-form-urlencoded; charset=utf-8"), Dialect::Query);
        assert_eq!(guess("authorization", "x Credential=a/b/c/s3/aws4_request, y"), Dialect::RestXml);
        assert!(matches!(guess("x-amz-target", "DynamoDB_20120810.ListTables"), Dialect::AwsJson { .. }));
        assert_eq!(guess("content-type", "application/json"), Dialect::RestJson);
    }

    #[test]
    fn xml_is_well_formed_whatever_it_says() {
        let text = xml(Dialect::Query, "Code", "a<b>&\"c\u{1}", false, "id");
        assert!(text.contains("<Message>a&lt;b&gt;&amp;&quot;c\u{fffd}</Message>"), "{text}");
        assert!(text.contains("<Type>Sender</Type>"));
        assert!(xml(Dialect::RestXml, "Code", "m", true, "id").starts_with("<?xml"));
    }
}
