"""What Lambda's own runtime has preinstalled under this name: hooks around a snapshot, which here is a fork.

A function that brings the package along gets its own copy, and its hooks run all the same.
"""

__all__ = ["register_after_restore", "register_before_snapshot"]

_before_snapshot = []
_after_restore = []


def register_before_snapshot(func, *args, **kwargs):
    """Has `func(*args, **kwargs)` called before the template is parked; the last registered comes first."""
    _before_snapshot.append((func, args, kwargs))
    return func


def register_after_restore(func, *args, **kwargs):
    """Has `func(*args, **kwargs)` called in each environment that was forked; the first registered comes first."""
    _after_restore.append((func, args, kwargs))
    return func


def get_before_snapshot():
    """The registered calls, in the order of their registration."""
    return _before_snapshot


def get_after_restore():
    """The registered calls, in the order of their registration."""
    return _after_restore
