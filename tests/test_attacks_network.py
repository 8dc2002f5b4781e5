"""Attacks, run as functions: reaching anything over a socket. A function has a loopback of its own and nothing else."""

import os
import socket

import pytest


def test_reaching_the_network(attacker):
    assert attacker.run("""
        import socket
        reached = []
        for address in ("192.0.2.1", "169.254.169.254", "198.51.100.1"):
            s = socket.socket()
            s.settimeout(1)
            try:
                s.connect((address, 80))
                reached.append(address)
            except OSError as error:
                if isinstance(error, TimeoutError):
                    reached.append(f"{address}: a packet went out")
            s.close()
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            u.sendto(b"x", ("192.0.2.1", 53))
            reached.append("udp")
        except OSError:
            pass
        with open("/proc/net/dev") as f:
            interfaces = [line.split(":")[0].strip() for line in f if ":" in line]
        reached += [name for name in interfaces if name != "lo"]
        result = reached
    """) == []


def test_unusual_sockets(attacker):
    """An ordinary environment may have netlink (getaddrinfo uses it), which cannot change anything there. Where capabilities may have
    been kept it is refused; the others have no use anywhere."""
    opened = attacker.run("""
        import socket
        families = {"AF_PACKET": 17, "AF_NETLINK": 16, "AF_VSOCK": 40, "AF_ALG": 38, "AF_KEY": 15, "AF_XDP": 44, "AF_TIPC": 30, "AF_CAN": 29}
        result = []
        for name, family in families.items():
            for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                try:
                    socket.socket(family, kind).close()
                    result.append(name)
                    break
                except OSError:
                    pass
    """)
    assert opened in ([], ["AF_NETLINK"]) if attacker.name == "handler" else opened == [], opened


def test_raw_sockets(attacker):
    assert attacker.run("""
        import socket
        try:
            socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
            result = "opened"
        except OSError:
            result = "refused"
    """) == "refused"


def test_reaching_services_on_the_host_s_loopback(attacker, server):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    reached = attacker.run("""
        import socket
        reached = []
        for port in event:
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                s = socket.socket(family)
                s.settimeout(1)
                try:
                    s.connect((host, port))
                    reached.append([host, port])
                except OSError:
                    pass
                s.close()
        result = reached
    """, [server.port, listener.getsockname()[1], 22, 80])
    with listener, pytest.raises(BlockingIOError):
        listener.accept()  # nobody stands in line
    assert reached == []


def test_unix_sockets_of_the_host(attacker, tmp_path):
    """Abstract sockets live in the network namespace; those in the file system must not be in view."""
    name = f"martlet-test-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + name)
    listener.listen()
    try:
        assert attacker.run(f"""
            import glob, os, socket, stat
            reached = []
            for address in ("\\0{name}", "/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private"):
                s = socket.socket(socket.AF_UNIX)
                try:
                    s.connect(address)
                    reached.append(address)
                except OSError:
                    pass
            result = reached
        """) == []
    finally:
        listener.close()
