#!/usr/bin/env python3
"""Signs requests with botocore at fixed dates and writes them to vectors.json beside this file.

    python3 crates/identity/tests/botocore/make.py          writes the file
    python3 crates/identity/tests/botocore/make.py --check  exits 1 when writing would change a byte

Needs the PyPI package botocore 1.44.5. The tests verify every request and sign it again.
"""

import datetime
import json
import pathlib
import sys

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST = "http://127.0.0.1:4566"
FUNCTIONS = "/2015-03-31/functions"
ARN = "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ahello"

# (name, method, path and query, headers, body, more)
REQUESTS = [
    ("plain get", "GET", FUNCTIONS, {}, "", {}),
    ("trailing slash", "GET", FUNCTIONS + "/", {}, "", {}),
    ("root", "POST", "/", {"X-Amz-Target": "Logs_20140328.DescribeLogGroups",
                           "Content-Type": "application/x-amz-json-1.1"}, "{}", {"service": "logs"}),
    ("empty path", "GET", "", {}, "", {}),
    ("invoke", "POST", FUNCTIONS + "/hello/invocations", {"X-Amz-Invocation-Type": "RequestResponse"}, '{"a":1}', {}),
    ("encoded arn", "GET", f"/2017-03-31/tags/{ARN}", {}, "", {}),
    ("raw colons", "GET", "/2017-03-31/tags/arn:aws:lambda:us-east-1:000000000000:function:hello", {}, "", {}),
    ("query", "GET", FUNCTIONS + "?Marker=abc&MaxItems=10", {}, "", {}),
    ("query unsorted", "GET", FUNCTIONS + "?b=2&a=1&a=0&B=3", {}, "", {}),
    ("query encoded", "POST", FUNCTIONS + "/hello/invocations?Qualifier=%24LATEST", {}, "null", {}),
    ("query without value", "GET", FUNCTIONS + "?flag=&x=%20y%2Bz", {}, "", {}),
    ("repeated query names", "DELETE", f"/2017-03-31/tags/{ARN}?tagKeys=b&tagKeys=a", {}, "", {}),
    ("unicode", "POST", FUNCTIONS + "/h%C3%A9llo/invocations?x=%E2%82%AC", {}, "\u20ac", {}),
    ("dot segments", "GET", "/2015-03-31/./x/../functions//hello", {}, "", {}),
    ("spaces in headers", "GET", FUNCTIONS, {"X-Amz-Meta": "  a   b\tc  "}, "", {}),
    ("many headers", "PUT", FUNCTIONS + "/hello/code",
     {"User-Agent": "x/1", "Content-Type": "application/json", "X-Amz-User-Agent": "y", "X-Amzn-Trace-Id": "Root=1",
      "Accept-Encoding": "identity"}, "{}", {}),
    ("other region", "GET", FUNCTIONS, {}, "", {"region": "eu-central-1"}),
    ("leap day", "GET", FUNCTIONS, {}, "", {"date": "20240229T235959Z"}),
    ("http date", "GET", FUNCTIONS, {"Date": "to be replaced"}, "", {}),
    ("content hash header", "POST", FUNCTIONS + "/hello/invocations",
     {"X-Amz-Content-SHA256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}, "{}", {}),
    ("unsigned payload", "POST", FUNCTIONS + "/hello/invocations", {}, "{}", {"unsigned": True}),
    ("presigned", "GET", "/_martlet/packages/abc", {}, "", {"expires": 600, "service": "martlet"}),
    ("presigned with query", "GET", "/_martlet/packages/abc?name=a%20b&x=1", {}, "", {"expires": 604800}),
    ("presigned with headers", "GET", FUNCTIONS, {"X-Amz-Meta": "x"}, "", {"expires": 1}),
]


def signed(name, method, path, headers, body, more):
    date = more.get("date", "20261123T090000Z")
    moment = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda: moment
    service, region = more.get("service", "lambda"), more.get("region", "us-east-1")
    # botocore leaves a body unsigned over TLS only; the scheme is no part of the signature.
    host = HOST.replace("http:", "https:") if "unsigned" in more else HOST
    request = AWSRequest(method=method, url=host + path, headers=headers, data=body.encode())
    request.context["payload_signing_enabled"] = "unsigned" not in more
    credentials = Credentials(KEY, SECRET)
    if "expires" in more:
        signer = botocore.auth.SigV4QueryAuth(credentials, service, region, expires=more["expires"])
        request.data = b""
    else:
        signer = botocore.auth.SigV4Auth(credentials, service, region)
    signer.add_auth(request)
    return {
        "name": name, "method": method, "target": request.url[len(host):] or "/",
        "headers": {"host": HOST[len("http://"):], **{key.lower(): value for key, value in request.headers.items()}},
        "body": body, "date": date, "region": region, "service": service, "expires": more.get("expires"),
    }


def main():
    vectors = {"access_key": KEY, "secret": SECRET, "requests": [signed(*request) for request in REQUESTS]}
    text = json.dumps(vectors, indent=1, ensure_ascii=True) + "\n"
    path = pathlib.Path(__file__).resolve().parent / "vectors.json"
    if "--check" not in sys.argv:
        path.write_text(text)
    elif path.read_text() != text:
        sys.exit(f"{path} is not what botocore gives")


if __name__ == "__main__":
    main()
