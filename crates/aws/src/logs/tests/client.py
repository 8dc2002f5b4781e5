"""Reads the group of tests/mod.rs with boto3: client.py HOST:PORT ACCESS_KEY SECRET"""

import sys
import time

import boto3
from botocore.config import Config

address, access_key, secret = sys.argv[1:]
GROUP = "/aws/lambda/hello"
logs = boto3.client(
    "logs", endpoint_url=f"http://{address}", region_name="us-east-1", aws_access_key_id=access_key,
    aws_secret_access_key=secret, config=Config(retries={"max_attempts": 0}))

# As `aws logs tail` does it: every page from ten minutes ago on.
since = int(time.time() * 1000) - 600_000
pages = logs.get_paginator("filter_log_events").paginate(
    logGroupName=GROUP, startTime=since, interleaved=True, PaginationConfig={"PageSize": 7})
events = [event for page in pages for event in page["events"]]
assert len(events) == 50 and len({event["eventId"] for event in events}) == 50, events
assert events == sorted(events, key=lambda event: event["timestamp"])
assert {event["logStreamName"] for event in events} == {"a", "b"}

# And as it follows: again from the newest timestamp, leaving out the ids that it has.
newest = events[-1]["timestamp"]
again = logs.filter_log_events(logGroupName=GROUP, startTime=newest, interleaved=True)["events"]
assert {event["eventId"] for event in again} <= {event["eventId"] for event in events}, again

groups = [group for page in logs.get_paginator("describe_log_groups").paginate() for group in page["logGroups"]]
assert [group["logGroupName"] for group in groups] == [GROUP], groups
pages = logs.get_paginator("describe_log_streams").paginate(logGroupName=GROUP, PaginationConfig={"PageSize": 1})
assert [stream["logStreamName"] for page in pages for stream in page["logStreams"]] == ["a", "b"]

messages, arguments = [], {}
while True:
    page = logs.get_log_events(logGroupName=GROUP, logStreamName="a", startFromHead=True, limit=10, **arguments)
    messages += [event["message"] for event in page["events"]]
    if arguments.get("nextToken") == page["nextForwardToken"]:
        break
    arguments["nextToken"] = page["nextForwardToken"]
assert messages == [f"a{number}" for number in range(25)], messages

logs.put_retention_policy(logGroupName=GROUP, retentionInDays=7)
assert logs.describe_log_groups()["logGroups"][0]["retentionInDays"] == 7
try:
    logs.filter_log_events(logGroupName="/none")
except logs.exceptions.ResourceNotFoundException as error:
    assert "log group does not exist" in str(error), error
else:
    raise AssertionError("a group that does not exist")
