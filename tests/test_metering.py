"""One metering record an invocation, with what any bill can be computed from."""

import sqlite3
import uuid

from harness import aws, lab
from harness.waiting import until

FUNCTION = """
import time
def handler(event, context):
    if event == "fail":
        raise ValueError("as asked")
    time.sleep(0.05)
    return "x" * 100
"""


def records(server):
    """All metering records, as dicts, read from the telemetry data base as an operator would."""
    database = server.data_dir / "telemetry.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table' and name like 'meter%'")]
        return [dict(row) for table in tables for row in connection.execute(f"select * from {table}")]


def one(record, *names):
    """The value of the first column whose name is among `names`."""
    for name in names:
        if name in record:
            return record[name]
    raise AssertionError(f"none of {names} in {sorted(record)}")


def text_of(request_id):
    """A request id as clients see it, however it is stored."""
    return str(uuid.UUID(bytes=request_id)) if isinstance(request_id, bytes) else request_id


def test_one_record_an_invocation(new_server, python):
    server = new_server().start()
    function = lab.create(aws.client(server), FUNCTION, python, name="metered", MemorySize=256)
    ids = [function.invoke(event)["ResponseMetadata"]["RequestId"] for event in ("a", "fail", {"n": 1})]
    ids.append(function.invoke("async", InvocationType="Event")["ResponseMetadata"]["RequestId"])
    found = until(lambda: len(r := records(server)) >= 4 and r, "four records")
    assert len(found) == 4
    by_id = {text_of(one(record, "request", "request_id")): record for record in found}
    assert set(by_id) == set(ids)
    first = by_id[ids[0]]
    assert one(first, "memory_mb") == 256
    assert 50 <= one(first, "billed_millis")
    assert one(first, "bytes_in") == 3 and one(first, "bytes_out") == 102
    assert [by_id[i]["status"] for i in ids].count(first["status"]) == 3, "one of them failed"
    assert one(first, "cold_start") and one(first, "init_micros") and not one(by_id[ids[1]], "cold_start")
    assert one(first, "cpu_micros") >= 0 and one(first, "max_memory_bytes") > 1 << 20
    server.restart()
    assert len(records(server)) == 4, "and they are kept"
