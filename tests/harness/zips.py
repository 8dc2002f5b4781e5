"""Deployment packages, made in memory."""

import io
import stat
import zipfile


# Says in a package which function it is for.
NAME_FILE = ".function"


def make_zip(files: dict[str, str | bytes], executable: tuple[str, ...] = ("bootstrap",)) -> bytes:
    """A zip of `files` (name -> content); the names in `executable` get mode 0755, the others 0644."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            mode = 0o755 if name in executable else 0o644
            entry.external_attr = (stat.S_IFREG | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def zip_with_symlink(name: str, target: str, files: dict[str, str | bytes]) -> bytes:
    """A zip of `files` and one symbolic link."""
    buffer = io.BytesIO(make_zip(files))
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
    return buffer.getvalue()
