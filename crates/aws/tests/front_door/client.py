"""Calls the toy Lambda of server.rs with boto3: client.py HOST:PORT ACCESS_KEY SECRET"""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

address, access_key, secret = sys.argv[1:]


def client(secret=secret, access_key=access_key):
    return boto3.client(
        "lambda", endpoint_url=f"http://{address}", region_name="us-east-1", aws_access_key_id=access_key,
        aws_secret_access_key=secret, config=Config(retries={"max_attempts": 0}, parameter_validation=False))


def refused(call, code, status, text):
    try:
        call()
    except ClientError as error:
        found = error.response
        assert found["Error"]["Code"] == code, found
        assert found["ResponseMetadata"]["HTTPStatusCode"] == status, found
        assert text in found["Error"]["Message"], found
    else:
        raise AssertionError(f"{code} was expected")


toy = client()
answer = toy.invoke(FunctionName="echo", Payload=b'{"a": "b"}', Qualifier="$LATEST")
assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST", answer
assert answer["Payload"].read() == b'{"a": "b"}'
assert toy.invoke(FunctionName="echo", InvocationType="Event")["StatusCode"] == 202
role = "arn:aws:iam::000000000000:role/r"
made = toy.create_function(FunctionName="f", Role=role, Code={"ZipFile": b"PK" * 1000}, Timeout=3, Publish=False)
assert made["CodeSize"] == 2000 and made["ResponseMetadata"]["HTTPStatusCode"] == 201, made
assert toy.list_functions(MaxItems=9)["NextMarker"].startswith("9 "), "query members"

refused(lambda: toy.invoke(FunctionName="missing"), "ResourceNotFoundException", 404, "Function not found")
refused(lambda: toy.invoke(FunctionName="a b"), "ValidationException", 400, "1 validation error detected: Value 'a b'")
refused(lambda: toy.create_function(FunctionName="f", Role=role, Code={"S3Bucket": "bucket", "S3Key": "k"}),
        "InvalidParameterValueException", 400, "Code.S3Bucket is not supported")
refused(lambda: toy.list_aliases(FunctionName="f"), "NotImplementedException", 501, "ListAliases")
refused(lambda: toy.invoke(FunctionName="echo", Payload=b" " * 2000), "RequestTooLargeException", 413, "1000 bytes")
refused(client(secret="wrong").list_functions, "InvalidSignatureException", 403, "does not match")
refused(client(access_key="AKIAOTHER").list_functions, "UnrecognizedClientException", 403, "security token")
