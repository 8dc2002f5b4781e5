"""The functions that are measured."""

ECHO = "def handler(event, context):\n    return event\n"
ECHO_NODE = "export const handler = async (event) => event;\n"
