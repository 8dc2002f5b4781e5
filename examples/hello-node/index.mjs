// Greets whom the event names, and tells which environment answered.
//
//     martlet deploy examples/hello-node
//     martlet invoke hello-node --payload '{"name": "Ada"}' --tail

// Work out here is done once an environment; work in the handler, once an event.
let calls = 0;

export const handler = async (event, context) => {
  calls += 1;
  const name = event.name ?? "world";
  console.log("greeting %s", name);
  return {
    message: `Hello, ${name}!`,
    function: context.functionName,
    version: context.functionVersion,
    memory_mb: Number(context.memoryLimitInMB),
    runtime: process.env.AWS_EXECUTION_ENV,
    calls_in_this_environment: calls,
    request_id: context.awsRequestId,
  };
};
