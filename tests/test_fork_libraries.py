"""Libraries that people really use, imported by init code, forked and used: in packages as Lambda takes them.

Each is installed from the public package index into a cache beside the tests' own packages, and skipped by name where that
cannot be done, or where it is larger than a package may be.
"""

import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from harness.attack import start_of
from harness.paths import ROOT, tool
from harness.waiting import until

CACHE = ROOT / ".venv" / "fork-libraries"
ZIP_BYTES = 50 * 1024 * 1024
UNPACKED_BYTES = 250 * 1024 * 1024
# What is in wheels and no function needs.
LEFT_OUT = ("tests", "__pycache__", "images", "descr")
LEFT_OUT_ENDINGS = (".pyi", ".pxd", ".pyx", ".h", ".a", ".map", ".d.ts", ".csv.gz", ".csv", ".tp")

HTTP_SERVER = """
    import http.server, threading
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers(); self.wfile.write(b"hi")
        def log_message(self, *words):
            pass
    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = "http://127.0.0.1:%d/" % server.server_port
"""

# Name: packages, init code, body of the handler, what it answers.
PYTHON = {
    "numpy": (["numpy"], "import numpy as np\nfirst = np.linalg.svd(np.ones((300, 300)) @ np.ones((300, 300)))",
              "return round(float(np.linalg.svd(np.eye(50) * 3)[1][0]), 6)", 3.0),
    "pandas": (["pandas"], "import pandas as pd",
               "return pd.DataFrame({'x': range(9)}).groupby(lambda i: i % 3).sum().x.tolist()", [9, 12, 15]),
    "boto3": (["boto3"], "import boto3\nclient = boto3.client('s3', region_name='eu-west-1', aws_access_key_id='a', aws_secret_access_key='b')",
              "return client.generate_presigned_url('get_object', Params={'Bucket': 'b', 'Key': 'k'})[:8]", "https://"),
    "requests": (["requests"], "import requests\nsession = requests.Session()",
                 HTTP_SERVER + "    return session.get(url).text", "hi"),
    "pillow": (["pillow"], "from PIL import Image\nimage = Image.new('RGB', (640, 480))",
               "return image.resize((32, 24), Image.LANCZOS).size", [32, 24]),
    "scikit-learn": (["scikit-learn"], "import numpy as np\nfrom sklearn.linear_model import LogisticRegression",
                     "x = np.arange(200.0).reshape(100, 2)\n    return LogisticRegression().fit(x, x[:, 0] > 99).score(x, x[:, 0] > 99) > 0.9", True),
    "onnxruntime": (["onnxruntime"], "import numpy as np, onnxruntime, os\nmodel = os.path.join(os.path.dirname(__file__), 'model.onnx')",
                    "session = onnxruntime.InferenceSession(model)\n    return session.run(None, {'x': np.ones((2, 3), dtype=np.float32)})[0].tolist()",
                    [[3.0, 3.0], [3.0, 3.0]]),
    "cryptography": (["cryptography"], "from cryptography.fernet import Fernet\nfernet = Fernet(Fernet.generate_key())",
                     "return fernet.decrypt(fernet.encrypt(b'x')).decode()", "x"),
}

# One that has threads of its own when init code has used it, and what the reason says.
THREADED = {
    "onnxruntime": (["onnxruntime"], "import numpy as np, onnxruntime, os\noptions = onnxruntime.SessionOptions()\noptions.intra_op_num_threads = 3\n"
                    "session = onnxruntime.InferenceSession(os.path.join(os.path.dirname(__file__), 'model.onnx'), options)",
                    "return session.run(None, {'x': np.ones((1, 3), dtype=np.float32)})[0].tolist()", [[3.0, 3.0]]),
}

LOCAL = """
    const server = require("http").createServer((request, response) => {
      response.setHeader("content-type", "%s");
      response.end(%s);
    });
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const endpoint = "http://127.0.0.1:" + server.address().port;
"""
SETTINGS = "region: 'eu-west-1', credentials: { accessKeyId: 'a', secretAccessKey: 'b' }"
BUCKETS = "'<ListAllMyBucketsResult><Buckets><Bucket><Name>one</Name></Bucket></Buckets></ListAllMyBucketsResult>'"

NODE = {
    "@aws-sdk/client-s3": (
        "const s3 = require('@aws-sdk/client-s3');\nconst early = new s3.S3Client({ %s });" % SETTINGS,
        LOCAL % ("application/xml", BUCKETS) + """
    const client = new s3.S3Client({ endpoint, forcePathStyle: true, %s });
    const answer = await client.send(new s3.ListBucketsCommand({}));
    client.destroy(); server.close();
    return answer.Buckets[0].Name;""" % SETTINGS, "one"),
    "@aws-sdk/client-dynamodb": (
        "const db = require('@aws-sdk/client-dynamodb');\nconst early = new db.DynamoDBClient({ %s });" % SETTINGS,
        LOCAL % ("application/x-amz-json-1.0", "'{\"TableNames\":[\"one\"]}'") + """
    const client = new db.DynamoDBClient({ endpoint, %s });
    const answer = await client.send(new db.ListTablesCommand({}));
    client.destroy(); server.close();
    return answer.TableNames;""" % SETTINGS, ["one"]),
    "express": (
        "const app = require('express')();\napp.get('/', (request, response) => response.json({ hi: 1 }));", """
    const server = app.listen(0, "127.0.0.1");
    await new Promise((done) => server.on("listening", done));
    const answer = await new Promise((done) => require("http").get({ port: server.address().port, agent: false },
      (response) => response.on("data", (data) => done(JSON.parse(data)))));
    server.close();
    return answer;""", {"hi": 1}),
    "sharp": (
        "const sharp = require('sharp');", """
    const red = { create: { width: 64, height: 48, channels: 3, background: "red" } };
    const image = await sharp(await sharp(red).resize(32, 24).png().toBuffer()).metadata();
    return [image.width, image.height];""", [32, 24]),
}


def model() -> bytes:
    """An ONNX model (protobuf, written by hand): y = x * w, where w is a matrix of ones with 3 rows and 2 columns."""
    def field(number, content):
        if isinstance(content, int):
            return bytes([number << 3, content])
        content = content.encode() if isinstance(content, str) else content
        return bytes([number << 3 | 2, len(content)]) + content

    def matrix(name, columns):
        shape = field(1, field(2, "n")) + field(1, field(1, columns))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    weights = field(1, 3) + field(1, 2) + field(2, 1) + field(8, "w") + field(9, b"\x00\x00\x80\x3f" * 6)
    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "MatMul")
    graph = field(1, node) + field(2, "g") + field(5, weights) + field(11, matrix("x", 3)) + field(12, matrix("y", 2))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))


def installed(key: str, install) -> Path:
    """The folder that `install` has filled, now or in an earlier run; skips the test where it fails."""
    folder = CACHE / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        done = install(folder)
        if done.returncode != 0:
            pytest.skip(f"{key} cannot be installed here: {(done.stderr or done.stdout).strip()[-300:]}")
        (folder / ".complete").write_text(key)
    return folder


def python_packages(runtime: str, names: list[str]) -> Path:
    version = runtime.removeprefix("python")

    def install(folder):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:",
                   "--python-version", version, "--target", str(folder), *names]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return installed(f"{runtime} {' '.join(names)}", install)


def node_package(name: str) -> Path:
    if tool("npm") is None:
        pytest.skip(f"{name} cannot be installed here: there is no npm")

    def install(folder):
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--omit=dev", "--prefix", str(folder), name]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return installed(f"node {name}", install)


def package(name: str, folder: Path, more: dict[str, str | bytes]) -> bytes:
    """The zip of an installed folder and some files; skips the test when it is too large."""
    # The quicker level first: what counts here is that it fits.
    for level in (1, 9):
        size, content = pack(folder, more, level)
        if len(content) <= ZIP_BYTES and size <= UNPACKED_BYTES:
            return content
    pytest.skip(f"{name}: {len(content) >> 20} MB zipped and {size >> 20} MB unpacked are more than a package may have")


def pack(folder: Path, more: dict[str, str | bytes], level: int) -> tuple[int, bytes]:
    size, buffer = 0, io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if not path.is_file() or path.name.endswith(LEFT_OUT_ENDINGS) or path.name == ".complete":
                continue
            if any(part in LEFT_OUT for part in inside.parts):
                continue
            size += path.stat().st_size
            archive.write(path, inside)
        for name, content in more.items():
            # With a date of its own the same package is the same file, and unpacked once.
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
    return size, buffer.getvalue()


@pytest.fixture
def deploy_large(lam, deploy):
    """As `deploy`, but for packages of a hundred megabytes, which a busy machine may be minutes about."""
    def make(code, runtime, handler, **config):
        function = deploy({"none": ""}, runtime, handler=handler, **config)
        lam.update_function_code(FunctionName=function.name, ZipFile=code)

        def done():
            return lam.get_function_configuration(FunctionName=function.name).get("LastUpdateStatus") != "InProgress"

        until(done, f"{function.name} to be unpacked", 300)
        return function

    return make


def forked_twice(server, function, expected):
    """Calls until an environment has been forked, and once more."""
    for _ in range(2):
        assert function.call() == expected
    start = start_of(server, function.name)
    if "sandbox" in start.get("Reason", ""):
        pytest.skip(f"nothing starts by fork here: {start}")
    return start


def python_function(deploy_large, python, name, handler):
    """A function of the packages of `name`, with everything that any test has to run on them."""
    def source(init, body):
        return f"{init}\ndef handler(event, context):\n    {body.lstrip()}\n"

    files = {"lambda_function.py": source(*PYTHON[name][1:3]), "model.onnx": model()}
    if name in THREADED:
        files["threaded.py"] = source(*THREADED[name][1:3])
    packed = package(name, python_packages(python, PYTHON[name][0]), files)
    return deploy_large(packed, python, handler=handler, MemorySize=1024, Timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHON)
def test_python_libraries_work_after_a_fork(server, deploy_large, python, name):
    function = python_function(deploy_large, python, name, "lambda_function.handler")
    assert forked_twice(server, function, PYTHON[name][3])["Start"] == "fork"


@pytest.mark.slow
@pytest.mark.parametrize("name", THREADED)
def test_a_library_with_threads_of_its_own_starts_ordinarily(server, deploy_large, python, name):
    function = python_function(deploy_large, python, name, "threaded.handler")
    start = forked_twice(server, function, THREADED[name][3])
    assert start["Start"] == "ordinary" and "threads" in start["Reason"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NODE)
def test_node_packages_work_after_a_fork(server, deploy_large, node, name):
    init, body, expected = NODE[name]
    source = f"{init}\nexports.handler = async () => {{{body}\n}};\n"
    function = deploy_large(package(name, node_package(name), {"index.js": source}), node, handler="index.handler", MemorySize=512, Timeout=60)
    assert forked_twice(server, function, expected)["Start"] == "fork"
