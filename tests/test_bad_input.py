"""Hostile and broken input: a precise error, nothing half-written, and a server that is well afterwards."""

import base64
import io
import json
import os
import random
import socket
import struct
import time
import zipfile
import zlib

import pytest
from harness import aws, lab
from harness.aws import ROLE
from harness.waiting import until
from harness.zips import make_zip

CODE = "def handler(event, context):\n    return 1\n"


@pytest.fixture(autouse=True)
def still_well(server):
    """After each test: the server answers, and its memory is not gone through the roof."""
    yield
    assert server.health()["version"]
    with open(f"/proc/{server.pid}/status") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert rss < 600_000, f"{rss} kB resident"


def create(loose, python, package):
    """The refusal of a package, as (code, message); None when it was accepted."""
    name = lab.unique("bad")
    try:
        loose.create_function(FunctionName=name, Runtime=python, Role=ROLE, Handler="lambda_function.handler", Code={"ZipFile": package})
    except loose.exceptions.ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"]["Message"]
    finally:
        names = [f["FunctionName"] for p in loose.get_paginator("list_functions").paginate() for f in p["Functions"]]
        if name in names:
            loose.delete_function(FunctionName=name)
            created = True
        else:
            created = False
    assert created
    return None


def zip_claiming(size: int, data: bytes = b"x") -> bytes:
    """A zip whose one entry says it is `size` bytes long."""
    package = bytearray(make_zip({"lambda_function.py": data}))
    central = package.index(b"PK\x01\x02")
    struct.pack_into("<I", package, 22, size)
    struct.pack_into("<I", package, central + 24, size)
    return bytes(package)


def bomb(entries=1, size=300 * 1024 * 1024) -> bytes:
    """A well-formed zip that unpacks to entries x size bytes of zeros."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    crc, packed = 0, b""
    chunk = bytes(1 << 20)
    for _ in range(size >> 20):
        packed += compressor.compress(chunk)
        crc = zlib.crc32(chunk, crc)
    packed += compressor.flush()
    out, directory = io.BytesIO(), b""
    for number in range(entries):
        name = f"zeros{number}".encode()
        offset = out.tell()
        head = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0x5821, crc, len(packed), size, len(name), 0)
        out.write(b"PK\x03\x04" + head + name + packed)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + head + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name
    start = out.tell()
    out.write(directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, entries, entries, len(directory), start, 0))
    return out.getvalue()


def test_zip_bombs(loose, python, server):
    before = disk(server)
    for package in (bomb(), bomb(entries=10, size=100 * 1024 * 1024)):
        assert zipfile.ZipFile(io.BytesIO(package)).namelist()
        code, message = create(loose, python, package)
        assert code == "InvalidParameterValueException" and "262144000" in message, message
    assert disk(server) - before < 1 << 20


def disk(server):
    return sum(os.lstat(os.path.join(top, file)).st_size for top, _, files in os.walk(server.data_dir) for file in files
               if not file.endswith(("-wal", "-shm", ".db")))


def test_a_zip_bomb_of_overlapping_entries(loose, python):
    """Many directory entries over one and the same compressed body."""
    single = bomb(entries=1, size=10 * 1024 * 1024)
    end = single.index(b"PK\x01\x02")
    entry = single[end:single.index(b"PK\x05\x06")]
    count = 1000
    directory = entry * count
    package = single[:end] + directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), end, 0)
    assert create(loose, python, package)[0] == "InvalidParameterValueException"


@pytest.mark.parametrize("names", [["../x.py"], ["/abs.py"], ["a/../../x.py"], ["..\\x.py"], ["C:\\x.py"], ["a\\..\\..\\x.py"],
                                   ["x\0.py"], ["a//../../b"], ["."], [".."], ["a" * 300 + ".py"], ["d/" * 200 + "x.py"]],
                         ids=lambda names: repr(names[0])[:20])
def test_names_that_lead_elsewhere(loose, python, server, names):
    raw_names = {name: b"x" for name in names}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("lambda_function.py", CODE)
        for number, name in enumerate(raw_names):
            archive.writestr(zipfile.ZipInfo(f"PLACEHOLDER{number}".ljust(len(name.encode()), "_")[:len(name.encode())] if len(name) > 3 else name), b"x")
    package = buffer.getvalue()
    for number, name in enumerate(raw_names):
        if len(name) > 3:
            holder = f"PLACEHOLDER{number}".ljust(len(name.encode()), "_")[:len(name.encode())]
            package = package.replace(holder.encode(), name.encode())
    refusal = create(loose, python, package)
    assert refusal and refusal[0] == "InvalidParameterValueException", refusal
    assert not [path for path in server.base.rglob("x.py")] and not os.path.exists("/abs.py")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names(loose, python):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("lambda_function.py", CODE)
        archive.writestr("lambda_function.py", CODE)
    code, message = create(loose, python, buffer.getvalue())
    assert code == "InvalidParameterValueException" and "lambda_function.py" in message


def test_a_file_that_is_also_a_directory(loose, python):
    assert create(loose, python, make_zip({"lambda_function.py": CODE, "a": "x", "a/b": "x"}))[0] == "InvalidParameterValueException"


def broken_packages():
    good = make_zip({"lambda_function.py": CODE, "more.txt": "y" * 5000})
    yield "nothing", b"\0"
    yield "cut in the middle", good[:len(good) // 2]
    yield "without its end", good[:-10]
    yield "only an end", b"PK\x05\x06" + bytes(18)
    yield "a wrong checksum", good.replace(zlib.crc32(CODE.encode()).to_bytes(4, "little"), b"abcd")
    yield "a lie about its size", zip_claiming(0xFFFFFFF0)
    yield "a smaller lie", zip_claiming(0)
    damaged = bytearray(good)
    damaged[good.index(b"lambda_function.py") + 20] ^= 0xFF
    yield "damaged data", bytes(damaged)
    yield "an unknown method", good.replace(b"PK\x03\x04\x14\x00\x00\x00\x08\x00", b"PK\x03\x04\x14\x00\x00\x00\x63\x00").replace(
        b"\x14\x03\x14\x00\x00\x00\x08\x00", b"\x14\x03\x14\x00\x00\x00\x63\x00")
    yield "encrypted", good.replace(b"PK\x03\x04\x14\x00\x00\x00", b"PK\x03\x04\x14\x00\x01\x00").replace(
        b"\x14\x03\x14\x00\x00\x00", b"\x14\x03\x14\x00\x01\x00")
    yield "a directory offset beyond the end", good[:-6] + struct.pack("<I", 0xFFFFFF00) + good[-2:]
    yield "gzip", b"\x1f\x8b" + bytes(100)
    yield "a tar", b"lambda_function.py".ljust(257, b"\0") + b"ustar" + bytes(1000)


BROKEN = list(broken_packages())


@pytest.mark.parametrize("package", [package for _, package in BROKEN], ids=[name for name, _ in BROKEN])
def test_broken_archives(loose, python, package):
    refusal = create(loose, python, package)
    assert refusal and refusal[0] == "InvalidParameterValueException", refusal


def test_randomly_damaged_archives_never_hurt_the_server(raw, python):
    good = make_zip({"lambda_function.py": CODE, "a/b.txt": "z" * 2000, "c.bin": os.urandom(500)})
    chance = random.Random(7)
    for number in range(150):
        package = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            package[chance.randrange(len(package))] = chance.randrange(256)
        answer = raw.call("POST", "/2015-03-31/functions", {
            "FunctionName": f"fuzz-{number}", "Runtime": python, "Role": ROLE, "Handler": "lambda_function.handler",
            "Code": {"ZipFile": base64.b64encode(bytes(package)).decode()}})
        assert answer.status in (201, 400), answer
        if answer.status == 201:
            raw.call("DELETE", aws.function_path(f"fuzz-{number}"))


def test_a_zip_over_fifty_megabytes(raw, python):
    package = base64.b64encode(os.urandom(3 << 20) * 18).decode()
    answer = raw.call("POST", "/2015-03-31/functions", {"FunctionName": "big", "Runtime": python, "Role": ROLE,
                                                        "Handler": "lambda_function.handler", "Code": {"ZipFile": package}})
    assert answer.status == 413 and answer.error in ("RequestEntityTooLargeException", "RequestTooLargeException"), answer


def test_a_zip_just_under_fifty_megabytes_works(deploy, python):
    with_ballast = io.BytesIO()
    with zipfile.ZipFile(with_ballast, "w") as archive:
        archive.writestr("lambda_function.py", CODE)
        archive.writestr("ballast", os.urandom(49 << 20))
    assert deploy(with_ballast.getvalue(), python).call() == 1


def test_very_many_entries(loose, python):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("lambda_function.py", CODE)
        for number in range(100_001):
            archive.writestr(zipfile.ZipInfo(f"{number:x}"), b"")
    refusal = create(loose, python, buffer.getvalue())
    assert refusal and refusal[0] == "InvalidParameterValueException"


NAMES = ["", " ", "a b", "a" * 141, "ü", "a/b", "a\\b", "..", ".", "%00", "a?b", "a#b", "arn:aws:lambda", "arn:aws:lambda:us-east-1:12:function:x",
         "arn:aws:lambda:us-east-1:000000000000:function:", "arn:aws:lambda:us-east-1:000000000000:layer:x", "arn:aws:s3:::bucket",
         "arn:aws:lambda:us-east-1:000000000000:function:x:y:z", "x:", ":x", "x:a b", "function:", "000000000000:function:x:", "$LATEST", "x:$latest",
         "a\nb", "<script>", "'; drop table", "a" * 65, "-" * 64 + "-"]


@pytest.mark.parametrize("name", NAMES, ids=[repr(name)[:24] for name in NAMES])
def test_names_of_every_wrong_form(raw, python, name):
    for method, what, document in (("GET", [], None), ("DELETE", [], None), ("POST", ["invocations"], {}), ("PUT", ["configuration"], {"Timeout": 4})):
        answer = raw.call(method, aws.function_path(name, *what), document)
        if name == "" and method == "GET":
            continue  # that is ListFunctions
        assert 400 <= answer.status < 500 and answer.error and answer.error != "InvalidSignatureException", (method, name, answer)
        assert answer.error != "ServiceException"
    answer = raw.call("POST", "/2015-03-31/functions", {"FunctionName": name, "Runtime": python, "Role": ROLE, "Handler": "a.b",
                                                        "Code": {"ZipFile": base64.b64encode(make_zip({"a.py": CODE})).decode()}})
    assert answer.status == 400 and answer.error in ("ValidationException", "InvalidParameterValueException"), (name, answer)


def test_an_arn_of_another_region(raw):
    answer = raw.call("GET", aws.function_path("arn:aws:lambda:eu-west-1:000000000000:function:x"))
    assert (answer.status, answer.error) == (404, "ResourceNotFoundException")
    assert answer.message == "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"


def test_an_arn_of_another_account(raw):
    answer = raw.call("GET", aws.function_path("arn:aws:lambda:us-east-1:999999999999:function:x"))
    assert answer.status in (403, 404) and answer.error in ("ResourceNotFoundException", "AccessDeniedException"), answer


def talk(server, data: bytes, seconds=15, half_close=False) -> bytes:
    """Sends bytes and gives all that comes back until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
    return received


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


GARBAGE = {
    "no http": b"hello\r\n\r\n", "zeros": bytes(1000), "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no version": b"GET /\r\n\r\n", "bad version": b"GET / HTTP/9.9\r\n\r\n",
    "a blank in a header name": b"GET / HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n", "no colon": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "a control character": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", "negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "huge length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    "bad chunks": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n",
    "a huge method": b"A" * 100_000 + b" / HTTP/1.1\r\n\r\n", "a huge path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a huge header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "a thousand headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1000)) + b"\r\n",
    "bad percent": b"GET /2015-03-31/functions/%zz HTTP/1.1\r\nHost: x\r\n\r\n", "invalid utf-8": b"GET /2015-03-31/functions/%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "an absolute uri": b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "connect": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_on_the_wire(server, data):
    answer = talk(server, data, half_close=True)
    assert answer == b"" or 400 <= status(answer) < 500 or status(answer) == 501, answer[:200]
    assert b"smuggled" not in answer and answer.count(b"HTTP/1.1 ") <= 1


def test_truncated_requests(server, raw):
    path = aws.function_path("python-lab", "invocations")
    body = b'{"code": "result = 1"}'
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {len(body) + 10}\r\n"
    head += "".join(f"{n}: {v}\r\n" for n, v in raw.sign("POST", path, body).headers.items() if n.lower() not in ("host", "content-length"))
    for cut in (head[:20], head, head + "\r\n", head + "\r\n" + body.decode()):
        answer = talk(server, cut.encode(), half_close=True)
        assert answer == b"" or 400 <= status(answer) < 500, answer[:200]


def test_slow_clients_are_given_up(new_server):
    server = new_server(config="[gateway]\nheader_timeout_seconds = 1\nbody_timeout_seconds = 1\n").start()
    began = time.monotonic()
    answer = talk(server, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow:")
    assert time.monotonic() - began < 6 and (answer == b"" or status(answer) in (400, 408)), answer[:200]
    raw = aws.Raw(server)
    path = "/2015-03-31/functions"
    signed = raw.sign("POST", path, b"x" * 100).headers.items()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 100\r\n"
    head += "".join(f"{n}: {v}\r\n" for n, v in signed if n.lower() not in ("host", "content-length"))
    began = time.monotonic()
    answer = talk(server, head.encode() + b"\r\nonly this")
    assert time.monotonic() - began < 6 and (answer == b"" or status(answer) in (400, 408)), answer[:200]


def test_many_idle_connections_do_not_keep_others_out(server, pylab):
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    try:
        assert pylab.run("result = 1") == 1
    finally:
        for connection in idle:
            connection.close()


def test_more_connections_than_allowed_come_back_after_the_crowd(new_server):
    server = new_server(config="[gateway]\nmax_connections = 5\n").start()
    crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for connection in crowd:
        connection.close()
    until(server.health, "health after the crowd")


def test_descriptors_do_not_leak(server):
    def count():
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    if not os.access(f"/proc/{server.pid}/fd", os.R_OK):
        pytest.skip("the server's descriptors are not readable here")
    before = count()
    for _ in range(50):
        talk(server, b"nonsense\r\n\r\n", half_close=True)
    until(lambda: count() <= before + 5, "the descriptors to be closed")


@pytest.mark.parametrize("depth", [200, 100_000])
def test_deeply_nested_json(raw, pylab, depth):
    nested = b"[" * depth + b"]" * depth
    answer = raw.send("POST", aws.function_path("python-lab", "invocations"), b'{"code": "result = 1", "x": ' + nested + b"}")
    assert answer.status in (200, 400), answer
    answer = raw.send("POST", "/2015-03-31/functions", b'{"FunctionName": ' + nested + b"}", {"content-type": "application/json"})
    assert answer.status == 400


def test_a_body_in_chunks_is_a_body(server, raw, pylab):
    path = aws.function_path("python-lab", "invocations")
    body = json.dumps({"code": "result = 'chunked'"}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    head += "".join(f"{n}: {v}\r\n" for n, v in raw.sign("POST", path, body).headers.items() if n.lower() not in ("host", "content-length"))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7)) + b"0\r\n\r\n"
    answer = talk(server, head.encode() + b"\r\n" + chunks)
    assert status(answer) == 200 and b'"chunked"' in answer


def test_several_requests_at_once_on_one_connection(server):
    answer = talk(server, b"GET /_martlet/health HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"GET /_martlet/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 3


def test_expect_100_continue(server, raw, pylab):
    path = aws.function_path("python-lab", "invocations")
    body = json.dumps({"code": "result = 'continued'"}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n"
    head += "".join(f"{n}: {v}\r\n" for n, v in raw.sign("POST", path, body).headers.items() if n.lower() not in ("host", "content-length"))
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head.encode() + b"\r\n")
        assert b"100 Continue" in connection.recv(1000)
        connection.sendall(body)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert b'"continued"' in received
