"""What the black-box tests share: the real server as a process, real clients, code to deploy."""
