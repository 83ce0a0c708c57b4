import gzip
import io
import stat
import tarfile
import zipfile

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.archives import extract


def make_tar(path, entries):
    """Entries are (name, bytes) or ready ``TarInfo`` objects without content."""
    with tarfile.open(path, "w:gz") as bundle:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                bundle.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                bundle.addfile(info, io.BytesIO(entry[1]))
    return path


def make_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in entries:
            bundle.writestr(name, content)
    return path


@pytest.fixture(params=["zip", "tar"])
def make(request, tmp_path):
    make_one, name = {"zip": (make_zip, "a.whl"), "tar": (make_tar, "a.tar.gz")}[request.param]
    return lambda entries: make_one(tmp_path / name, entries)


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_wanted_members_and_nothing_else(make, into):
    archive = make([("d/one.txt", b"one"), ("../two.txt", b"2"), ("/abs.txt", b"3")])
    extract(archive, {"d/one.txt": (into / "one.txt", 3)})
    assert (into / "one.txt").read_bytes() == b"one"
    assert {p.name for p in into.parent.iterdir()} == {archive.name, "into"}
    assert [p.name for p in into.iterdir()] == ["one.txt"]


def test_a_hostile_name_has_no_say_in_the_target(make, into):
    archive = make([("../../escape.txt", b"x")])
    extract(archive, {"../../escape.txt": (into / "kept.txt", 1)})
    assert (into / "kept.txt").read_bytes() == b"x"
    assert not (into.parent.parent / "escape.txt").exists()


def test_missing_member(make, into):
    with pytest.raises(UserError, match=r"no member b\.txt"):
        extract(make([("a.txt", b"1")]), {"b.txt": (into / "b.txt", 9)})


def test_member_beyond_its_cap(make, into):
    with pytest.raises(UserError, match="more than the 9 bytes it may have"):
        extract(make([("a.txt", b"0" * 10)]), {"a.txt": (into / "a.txt", 9)})


def test_members_beyond_the_total_cap(make, into):
    archive = make([("a.txt", b"0" * 600), ("b.txt", b"0" * 600)])
    wanted = {name: (into / name, 600) for name in ("a.txt", "b.txt")}
    extract(archive, wanted, max_total=1 << 20)
    for name in wanted:
        (into / name).unlink()
    with pytest.raises(UserError, match="more than"):
        extract(archive, wanted, max_total=1000)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice(make, into):
    with pytest.raises(UserError, match="twice"):
        extract(make([("a.txt", b"1"), ("a.txt", b"2")]), {"a.txt": (into / "a.txt", 9)})


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(kind, tmp_path, into):
    link = tarfile.TarInfo("a.txt")
    link.type, link.linkname = kind, "/etc/passwd"
    archive = make_tar(tmp_path / "a.tar.gz", [link])
    with pytest.raises(UserError, match="a link, a folder or a device"):
        extract(archive, {"a.txt": (into / "a.txt", 9999)})
    assert not list(into.iterdir())


def test_a_link_in_a_zip(tmp_path, into):
    info = zipfile.ZipInfo("a.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="a link"):
        extract(tmp_path / "a.zip", {"a.txt": (into / "a.txt", 99)})


def test_a_bomb_before_the_wanted_member(tmp_path, into):
    archive = make_tar(tmp_path / "a.tar.gz", [("bomb", b"\0" * (1 << 20)), ("a.txt", b"1")])
    assert archive.stat().st_size < 1 << 14
    with pytest.raises(UserError, match="unpacks to more than is allowed"):
        extract(archive, {"a.txt": (into / "a.txt", 9)}, max_total=1 << 18)


def test_nested_archive(tmp_path, into):
    inner = make_tar(tmp_path / "inner.tar.gz", [("d/a.txt", b"deep")]).read_bytes()
    archive = make_zip(tmp_path / "outer.zip", [("x/inner.tar.gz", inner), ("b.txt", b"flat")])
    extract(
        archive,
        {"x/inner.tar.gz!d/a.txt": (into / "a.txt", 4), "b.txt": (into / "b.txt", 4)},
    )
    assert {p.name: p.read_bytes() for p in into.iterdir()} == {"a.txt": b"deep", "b.txt": b"flat"}


def test_a_member_beyond_its_cap_in_a_nested_archive(tmp_path, into):
    inner = make_tar(tmp_path / "inner.tar.gz", [("a.txt", b"deep")]).read_bytes()
    archive = make_zip(tmp_path / "outer.zip", [("inner.tar.gz", inner)])
    with pytest.raises(UserError, match="more than the 3 bytes"):
        extract(archive, {"inner.tar.gz!a.txt": (into / "a.txt", 3)})


def test_no_archive_at_all(tmp_path, into):
    for content in (b"hello", gzip.compress(b"hello"), b""):
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.tar\.gz"):
            extract(tmp_path / "a.tar.gz", {"a.txt": (into / "a.txt", 3)})


def test_a_truncated_archive(tmp_path, into):
    content = make_tar(tmp_path / "a.tar.gz", [("a.txt", bytes(range(256)) * 64)]).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be unpacked"):
        extract(tmp_path / "a.tar.gz", {"a.txt": (into / "a.txt", 1 << 20)})


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE])
def test_device_nodes_and_folders_in_a_tar(kind, tmp_path, into):
    node = tarfile.TarInfo("a.txt")
    node.type, node.devmajor, node.devminor = kind, 1, 5  # /dev/zero never ends
    with pytest.raises(UserError, match="a link, a folder or a device"):
        extract(make_tar(tmp_path / "a.tar.gz", [node]), {"a.txt": (into / "a.txt", 9999)})
    assert not list(into.iterdir())


def test_a_link_before_a_member_leads_nowhere(tmp_path, into):
    """A folder that is a link to another place, and then a file in it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tarfile.TarInfo("d")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    archive = make_tar(tmp_path / "a.tar.gz", [link, ("d/a.txt", b"x")])
    extract(archive, {"d/a.txt": (into / "a.txt", 1)})
    assert not list(outside.iterdir())
    assert not (into / "a.txt").is_symlink() and (into / "a.txt").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["/etc/a.txt", "../../a.txt", "d/../../a.txt", "C:\\a.txt", "~/a"])
def test_no_name_is_a_place(make, name, into):
    """Absolute, upwards, another system's: the caller says where, or it is not written."""
    archive = make([(name, b"x")])
    before = {path for path in into.parent.rglob("*")}
    with pytest.raises(UserError, match="no member"):
        extract(archive, {"a.txt": (into / "a.txt", 9)})
    assert {path for path in into.parent.rglob("*")} == before


def test_a_target_that_is_there_is_not_written_over(make, into):
    (into / "a.txt").symlink_to(into.parent / "elsewhere")
    with pytest.raises(UserError, match="cannot be unpacked"):
        extract(make([("a.txt", b"1")]), {"a.txt": (into / "a.txt", 9)})
    assert not (into.parent / "elsewhere").exists()


def test_a_bomb_by_its_size(make, into):
    """64 MiB of zeros in a small archive: as much as the cap is written, not more."""
    archive = make([("a.txt", bytes(1 << 26))])
    assert archive.stat().st_size < 1 << 18
    with pytest.raises(UserError, match="more than the 4096 bytes"):
        extract(archive, {"a.txt": (into / "a.txt", 4096)})
    assert sum(path.stat().st_size for path in into.rglob("*")) <= 4096


def test_a_zip_that_declares_less_than_it_holds(tmp_path, into):
    archive = make_zip(tmp_path / "a.zip", [("a.txt", bytes(1 << 20))])
    small = (16).to_bytes(4, "little")
    data = archive.read_bytes().replace((1 << 20).to_bytes(4, "little"), small)
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zip"):
        extract(archive, {"a.txt": (into / "a.txt", 4096)})
    assert sum(path.stat().st_size for path in into.rglob("*")) <= 4096


def test_a_tar_that_declares_more_than_there_is(tmp_path, into):
    huge = tarfile.TarInfo("a.txt")
    huge.size = 1 << 40
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(huge.tobuf() + bytes(4096)))
    with pytest.raises(UserError, match=r"a\.tar\.gz"):
        extract(tmp_path / "a.tar.gz", {"a.txt": (into / "a.txt", 1 << 20)})
    assert sum(path.stat().st_size for path in into.rglob("*")) <= 1 << 20


def test_a_name_that_never_ends(tmp_path, into):
    """A GNU long name is data too: it counts."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1 << 24
    content = name.tobuf() + b"a" * (1 << 24)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match="more than is allowed"):
        extract(tmp_path / "a.tar.gz", {"a.txt": (into / "a.txt", 9)}, max_total=1 << 20)


def test_a_bomb_in_an_archive_inside(tmp_path, into):
    inner = make_tar(tmp_path / "inner.tar.gz", [("bomb", bytes(1 << 24)), ("a.txt", b"1")])
    archive = make_zip(tmp_path / "outer.zip", [("inner.tar.gz", inner.read_bytes())])
    with pytest.raises(UserError, match="more than is allowed"):
        extract(archive, {"inner.tar.gz!a.txt": (into / "a.txt", 9)}, max_total=1 << 20)
    assert {path.name for path in tmp_path.iterdir()} == {"inner.tar.gz", "outer.zip", "into"}


def test_a_zip_packed_in_a_way_nobody_knows(tmp_path, into):
    archive = make_zip(tmp_path / "a.zip", [("a.txt", b"one two three " * 9)])
    data = archive.read_bytes()
    method = data.rindex(b"PK\x01\x02") + 10
    archive.write_bytes(data[:method] + b"\x5d\x00" + data[method + 2 :])
    with pytest.raises(UserError, match="cannot be unpacked"):
        extract(archive, {"a.txt": (into / "a.txt", 999)})
