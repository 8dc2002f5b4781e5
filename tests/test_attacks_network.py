"""Attacks, run as functions: reaching anything over a socket. A function has a loopback of its own and nothing else."""

import os
import socket
import threading

import pytest


def test_reaching_the_network(pylab):
    assert pylab.run("""
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


@pytest.mark.parametrize("family", ["AF_PACKET", "AF_NETLINK", "AF_VSOCK", "AF_ALG", "AF_KEY"])
def test_unusual_sockets(pylab, family):
    """Netlink may exist (getaddrinfo uses it), but must not change anything; the others have no use."""
    assert pylab.run(f"""
        import socket
        family = getattr(socket, "{family}", None) or 15
        kinds = [socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET]
        result = "refused"
        for kind in kinds:
            try:
                socket.socket(family, kind)
                result = "opened"
            except OSError:
                pass
    """) == "refused" or family == "AF_NETLINK"


def test_raw_sockets(pylab):
    assert pylab.run("""
        import socket
        try:
            socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
            result = "opened"
        except OSError:
            result = "refused"
    """) == "refused"


def test_reaching_services_on_the_host_s_loopback(pylab, server):
    connections = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def accept():
        try:
            connections.append(listener.accept())
        except OSError:
            pass

    thread = threading.Thread(target=accept)
    thread.start()
    reached = pylab.run("""
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
    listener.close()
    thread.join()
    assert reached == [] and connections == []


def test_unix_sockets_of_the_host(pylab, tmp_path):
    """Abstract sockets live in the network namespace; those in the file system must not be in view."""
    name = f"martlet-test-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + name)
    listener.listen()
    try:
        assert pylab.run(f"""
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
