"""Clients of the server: boto3, and requests signed by hand for what boto3 will not send."""

import base64
import http.client
import json
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

REGION = "us-east-1"
ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/lambda"


def client(server, service="lambda", key=None, secret=None, region=REGION, validate=True, timeout=60, pool=64):
    """A boto3 client that never retries, so that every error is seen."""
    if key is None:
        found = server.credentials()
        key, secret = found["aws_access_key_id"], found["aws_secret_access_key"]
    return boto3.client(service, endpoint_url=server.endpoint, region_name=region, aws_access_key_id=key,
                        aws_secret_access_key=secret,
                        config=Config(retries={"total_max_attempts": 1}, parameter_validation=validate,
                                      read_timeout=timeout, connect_timeout=5, max_pool_connections=pool))


@dataclass
class Answer:
    """One HTTP answer, as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error's name: what stands before the first colon of x-amzn-ErrorType."""
        return self.headers.get("x-amzn-errortype", "").split(":")[0]

    @property
    def message(self) -> str:
        document = self.json
        return document.get("Message") or document.get("message") or ""


class Raw:
    """Requests signed with the server's own credentials (or others), each part of which a test may bend."""

    def __init__(self, server, key=None, secret=None, region=REGION, service="lambda"):
        if key is None:
            found = server.credentials()
            key, secret = found["aws_access_key_id"], found["aws_secret_access_key"]
        self.server, self.region, self.service = server, region, service
        self.credentials = Credentials(key, secret)

    def sign(self, method, path, body=b"", headers=None, auth=SigV4Auth):
        """The signed request as botocore makes it."""
        request = AWSRequest(method, self.server.endpoint + path, data=body, headers=dict(headers or {}))
        auth(self.credentials, self.service, self.region).add_auth(request)
        return request

    def send(self, method, path, body=b"", headers=None, bend=None) -> Answer:
        """Signs, lets `bend(headers, body)` change what was signed (it may return another body), and sends."""
        signed = dict(self.sign(method, path, body, headers).headers.items())
        if bend:
            changed = bend(signed, body)
            body = body if changed is None else changed
        return self.exchange(method, path, body, signed)

    def exchange(self, method, path, body=b"", headers=None, timeout=30) -> Answer:
        """Sends as it is, unsigned unless the headers say otherwise."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def call(self, method, path, document=None, query=None, headers=None) -> Answer:
        """A JSON request to the Lambda API."""
        if query:
            path += "?" + urlencode(query)
        body = b"" if document is None else json.dumps(document).encode()
        return self.send(method, path, body, {"content-type": "application/json"} | (headers or {}))


def function_path(name: str, *more: str) -> str:
    return "/".join(["/2015-03-31/functions", quote(name, safe=""), *more])


def tail(response: dict) -> str:
    """The log that came with an invocation."""
    return base64.b64decode(response["LogResult"]).decode(errors="replace")


def log_messages(logs, function: str, pattern: str | None = None) -> list[str]:
    """What a function's log group holds, oldest first; nothing before its first invocation."""
    more = {"filterPattern": pattern} if pattern else {}
    try:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{function}", **more)
        return [event["message"] for page in pages for event in page["events"]]
    except logs.exceptions.ResourceNotFoundException:
        return []
