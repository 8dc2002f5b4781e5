"""An extension from a layer, beside a Python function: told of each invocation, and of the end."""

import base64
import json

from harness import lab
from harness.waiting import until
from harness.zips import make_zip

WITNESS = '''#!/usr/bin/python3
import http.client, json, os, sys
sys.stdout.reconfigure(line_buffering=True)
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None, headers={}):
    api.request(method, "/2020-01-01/extension/" + path, body, headers)
    response = api.getresponse()
    return response, response.read()
response, _ = call("POST", "register", json.dumps({"events": ["INVOKE", "SHUTDOWN"]}), {"Lambda-Extension-Name": "witness"})
me = {"Lambda-Extension-Identifier": response.headers["Lambda-Extension-Identifier"]}
while True:
    event = json.loads(call("GET", "event/next", None, me)[1])
    print("witness", event["eventType"], event.get("requestId") or event["shutdownReason"])
    if event["eventType"] == "SHUTDOWN":
        break
'''


def test_an_extension_of_a_layer_is_told_of_calls_and_of_the_end(lam, logs, deploy, python):
    content = make_zip({"extensions/witness": WITNESS}, executable=("extensions/witness",))
    layer = lam.publish_layer_version(LayerName=lab.unique("witness"), Content={"ZipFile": content})["LayerVersionArn"]
    function = deploy("def handler(event, context):\n    return event\n", python, Layers=[layer])
    ids = []
    for event in range(3):
        answer = lam.invoke(FunctionName=function.name, Payload=json.dumps(event), LogType="Tail")
        assert json.loads(answer["Payload"].read()) == event
        assert "FunctionError" not in answer, base64.b64decode(answer["LogResult"])
        ids.append(answer["ResponseMetadata"]["RequestId"])
    # A new configuration ends the environments of the old one.
    lam.update_function_configuration(FunctionName=function.name, Description="changed")
    group = f"/aws/lambda/{function.name}"

    def lines():
        return [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]]

    until(lambda: any("witness SHUTDOWN SPINDOWN" in line for line in lines()), "the extension is told of the end")
    told = [line.split()[-1] for line in lines() if "witness INVOKE" in line]
    assert told == ids
    assert any(line.startswith("EXTENSION\tName: witness\tState: Ready\tEvents: [INVOKE,SHUTDOWN]") for line in lines())
