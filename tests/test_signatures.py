"""Signature Version 4: what is right passes, and each wrong thing has AWS's own error."""

import datetime
import http.client
import socket
import urllib.error
import urllib.request

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from harness import aws
from harness.aws import Raw

LIST = "/2015-03-31/functions"


def shifted_auth(minutes):
    """SigV4 with a clock that is off."""
    class Shifted(SigV4Auth):
        def add_auth(self, request):
            import botocore.auth as module
            real = module.get_current_datetime
            module.get_current_datetime = lambda *a, **k: real(*a, **k) + datetime.timedelta(minutes=minutes)
            try:
                super().add_auth(request)
            finally:
                module.get_current_datetime = real
    return Shifted


def send_with(raw, auth, method="GET", path=LIST, body=b""):
    return raw.exchange(method, path, body, dict(raw.sign(method, path, body, auth=auth).headers.items()))


def test_a_right_signature_passes(raw):
    assert raw.call("GET", LIST).status == 200


def test_queries_and_odd_paths_are_canonical_as_in_aws(raw):
    assert raw.call("GET", LIST, query={"MaxItems": "1"}).status == 200
    for name in ("a:$LATEST", "function:x", "arn:aws:lambda:us-east-1:000000000000:function:x"):
        assert raw.call("GET", aws.function_path(name)).status == 404
    answer = raw.send("GET", LIST + "?Marker=&MaxItems=2", b"")
    assert answer.status in (200, 400) and answer.error != "InvalidSignatureException"


def test_the_wrong_secret(server):
    key = server.credentials()["aws_access_key_id"]
    answer = Raw(server, key, "not-the-secret").call("GET", LIST)
    assert (answer.status, answer.error) == (403, "InvalidSignatureException")
    assert answer.message.startswith("The request signature we calculated does not match the signature you provided.")


def test_an_unknown_key(server):
    answer = Raw(server, "AKIAIOSFODNN7EXAMPLE", "x").call("GET", LIST)
    assert (answer.status, answer.error) == (403, "UnrecognizedClientException")
    assert answer.message == "The security token included in the request is invalid."


def test_no_authorization_at_all(raw):
    answer = raw.exchange("GET", LIST)
    assert (answer.status, answer.error) == (403, "MissingAuthenticationTokenException")
    assert answer.message == "Missing Authentication Token"


def test_a_changed_body(raw):
    answer = raw.send("POST", aws.function_path("x", "invocations"), b'{"a": 1}', bend=lambda headers, body: b'{"a": 2}')
    assert (answer.status, answer.error) == (403, "InvalidSignatureException")


def test_a_changed_path_query_or_method(raw):
    signed = dict(raw.sign("GET", LIST + "?MaxItems=1").headers.items())
    for method, path in (("GET", LIST + "?MaxItems=2"), ("GET", LIST + "/x"), ("DELETE", LIST + "/x"), ("POST", LIST + "?MaxItems=1")):
        answer = raw.exchange(method, path, headers=signed)
        assert (answer.status, answer.error) == (403, "InvalidSignatureException"), (method, path)


def test_a_signed_header_that_was_changed_or_dropped(raw):
    def change(headers, body):
        headers["X-Amz-Invocation-Type"] = "DryRun"

    def drop(headers, body):
        del headers["X-Amz-Invocation-Type"]

    path = aws.function_path("x", "invocations")
    for bend in (change, drop):
        answer = raw.send("POST", path, b"{}", {"X-Amz-Invocation-Type": "Event"}, bend=bend)
        assert answer.status == 403
        assert answer.error in ("InvalidSignatureException", "IncompleteSignatureException")


def test_a_missing_date(raw):
    def drop(headers, body):
        del headers["X-Amz-Date"]

    answer = raw.send("GET", LIST, bend=drop)
    assert answer.status in (400, 403)
    assert answer.error in ("IncompleteSignatureException", "MissingAuthenticationTokenException", "InvalidSignatureException")


@pytest.mark.parametrize("minutes", [-20, -16, 16, 20])
def test_a_clock_more_than_fifteen_minutes_off(raw, minutes):
    answer = send_with(raw, shifted_auth(minutes))
    assert (answer.status, answer.error) == (403, "InvalidSignatureException")
    assert ("Signature expired" if minutes < 0 else "Signature not yet current") in answer.message


@pytest.mark.parametrize("minutes", [-13, 13])
def test_a_clock_less_than_fifteen_minutes_off(raw, minutes):
    assert send_with(raw, shifted_auth(minutes)).status == 200


def test_a_scope_for_another_region_is_another_place(server, pylab):
    """The region of the credential's scope says where a request goes; what is here is not there."""
    answer = Raw(server, region="eu-west-9").call("GET", aws.function_path(pylab.name))
    if answer.status == 404:
        assert ":eu-west-9:" in answer.message
    else:
        assert (answer.status, answer.error) == (403, "InvalidSignatureException")


def test_a_scope_for_no_region_or_another_service(server):
    answer = Raw(server, region="no region!").call("GET", LIST)
    assert answer.status in (400, 403), answer
    answer = Raw(server, service="s3").call("GET", LIST)
    assert answer.status in (403, 501), answer


BROKEN = ["AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a", "Bearer token", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, "
          "SignedHeaders=host", "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/lambda/aws4_request, SignedHeaders=, "
          "Signature=", "AWS4-HMAC-SHA256 " + "x" * 3000, "Basic dXNlcjpwYXNz", "=,=,=,", "AWS4-HMAC-SHA512 Credential=x"]


@pytest.mark.parametrize("value", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_authorization_header(raw, value):
    answer = raw.exchange("GET", LIST, headers={"Authorization": value, "X-Amz-Date": "20260101T000000Z"})
    assert answer.status in (400, 403)
    assert answer.error in ("IncompleteSignatureException", "MissingAuthenticationTokenException",
                            "UnrecognizedClientException", "InvalidSignatureException")


def test_a_wrong_signature_is_refused_before_the_body_is_read(raw):
    """The head alone decides: the refusal comes although most of the promised body never does."""
    head = (f"POST {LIST} HTTP/1.1\r\nHost: 127.0.0.1:{raw.server.port}\r\nContent-Length: 60000000\r\n"
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIDNOBODY/20260101/us-east-1/lambda/aws4_request, "
            "SignedHeaders=host, Signature=00\r\nX-Amz-Date: 20260101T000000Z\r\n\r\nstart")
    with socket.create_connection(("127.0.0.1", raw.server.port), timeout=5) as connection:
        connection.sendall(head.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 403


def test_a_presigned_link(raw):
    class Auth(SigV4QueryAuth):
        def __init__(self, *args):
            super().__init__(*args, expires=60)

    url = raw.sign("GET", LIST, auth=Auth).url
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"), timeout=10)
    assert refused.value.code == 403
    assert refused.value.headers["x-amzn-ErrorType"].startswith("InvalidSignatureException")


def test_a_presigned_link_that_expired(raw):
    class Auth(SigV4QueryAuth):
        def __init__(self, *args):
            super().__init__(*args, expires=60)

        def add_auth(self, request):
            import botocore.auth as module
            real = module.get_current_datetime
            module.get_current_datetime = lambda *a, **k: real(*a, **k) - datetime.timedelta(minutes=3)
            try:
                super().add_auth(request)
            finally:
                module.get_current_datetime = real

    url = raw.sign("GET", LIST, auth=Auth).url
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=10)
    assert refused.value.code in (400, 403)


def test_health_needs_no_signature(server):
    assert server.health()["version"]


def test_the_credentials_file_is_private(server):
    path = server.data_dir / "credentials"
    assert path.stat().st_mode & 0o777 == 0o600
    found = server.credentials()
    assert found["aws_access_key_id"] and len(found["aws_secret_access_key"]) >= 40
