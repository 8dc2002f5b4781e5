// Reads response streams with the JavaScript SDK; run by test_streaming.py. Prints one JSON document: what it saw.
import { InvokeWithResponseStreamCommand, LambdaClient } from "@aws-sdk/client-lambda";

const lambda = new LambdaClient({ maxAttempts: 1 });
const text = new TextDecoder();

async function stream(event) {
  const seen = { body: "", chunks: 0 };
  const command = new InvokeWithResponseStreamCommand({ FunctionName: process.argv[2], Payload: JSON.stringify(event), LogType: "Tail" });
  for await (const { PayloadChunk, InvokeComplete } of (await lambda.send(command)).EventStream) {
    if (PayloadChunk) {
      seen.body += text.decode(PayloadChunk.Payload);
      seen.chunks += 1;
    }
    if (InvokeComplete) seen.complete = InvokeComplete;
  }
  return seen;
}

console.log(JSON.stringify({ ...(await stream({ way: "parts", parts: ["one", "two"], pause: 100 })), late: await stream({ way: "late" }) }));
