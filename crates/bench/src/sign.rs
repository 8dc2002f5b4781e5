//! Signature Version 4 for one kind of request: an invocation. Written from the public description, apart from the
//! server's own code, so that a fault there cannot hide here.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Who signs.
pub(crate) struct Credentials {
    pub(crate) key: String,
    pub(crate) secret: String,
}

/// Reads the default profile of a file in AWS shared-credentials format.
pub(crate) fn read_credentials(text: &str) -> Option<Credentials> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    Some(Credentials { key: value("aws_access_key_id")?, secret: value("aws_secret_access_key")? })
}

/// The whole HTTP request that invokes `function` at `host` with `payload`, for a response as a stream or whole, signed for now; `headers` (`NAME:VALUE`) stay
/// unsigned, but for those of AWS.
pub(crate) fn invocation(
    credentials: &Credentials,
    region: &str,
    host: &str,
    (function, stream): (&str, bool),
    headers: &[String],
    payload: &[u8],
) -> Vec<u8> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let day = &time[..8];
    // A qualifier's colon is encoded on its way, and what is encoded is encoded once more in what is signed.
    let function = function.replace(':', "%3A");
    let path = if stream {
        format!("/2021-11-15/functions/{function}/response-streaming-invocations")
    } else {
        format!("/2015-03-31/functions/{function}/invocations")
    };
    let signed = path.replace('%', "%25");
    let hash = hex(&Sha256::digest(payload));
    let mut signs = std::collections::BTreeMap::from([
        ("host".to_owned(), host),
        ("x-amz-content-sha256".to_owned(), hash.as_str()),
        ("x-amz-date".to_owned(), time.as_str()),
    ]);
    // AWS has every header of its own signed.
    let own = headers.iter().filter_map(|header| header.split_once(':'));
    let own = own.map(|(name, value)| (name.to_ascii_lowercase(), value.trim()));
    signs.extend(own.filter(|(name, _)| name.starts_with("x-amz-")));
    let names = signs.keys().map(String::as_str).collect::<Vec<_>>().join(";");
    let lines: String = signs.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("POST\n{signed}\n\n{lines}\n{names}\n{hash}");
    let scope = format!("{day}/{region}/lambda/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mut key = format!("AWS4{}", credentials.secret).into_bytes();
    for part in [day, region, "lambda", "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex(&mac(&key, text.as_bytes()));
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Amz-Date: {time}\r\nX-Amz-Content-Sha256: {hash}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\
         {}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        credentials.key,
        headers.iter().map(|header| format!("{header}\r\n")).collect::<String>(),
        payload.len()
    )
    .into_bytes();
    request.extend_from_slice(payload);
    request
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        },
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_in_a_profile() {
        let found =
            read_credentials("[default]\naws_access_key_id = AK\naws_secret_access_key=s=1\n").unwrap();
        assert_eq!((found.key.as_str(), found.secret.as_str()), ("AK", "s=1"));
        assert!(read_credentials("[default]\n").is_none());
    }

    #[test]
    fn a_mac_is_the_one_of_the_standard() {
        // RFC 4231, test case 2.
        assert_eq!(
            hex(&mac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
