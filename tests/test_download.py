"""Files fetched from a local server that behaves badly, and archives that would land elsewhere."""

import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from decant import download
from decant.download import Pinned, fetch, unpacked

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
PINNED = Pinned(len(CONTENT), "sha256", hashlib.sha256(CONTENT).hexdigest())


class Server(ThreadingHTTPServer):
    """What it answers, in turn: (status, first byte, last byte that it sends, content); the last for all further ones.
    None: all that was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/corpus.tar.gz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.server.asked.append(start)
        answer = self.server.answers.pop(0) if self.server.answers else {}
        content, status = answer.get("content", CONTENT), answer.get("status", 206 if start else 200)
        if status == 200:
            start = 0
        elif status == 206 and start >= len(content):
            status = 416
        start += answer.get("moved", 0)
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        body = content[start:] if status in (200, 206) else b""
        if answer.get("length", True):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:answer.get("drop", len(body))])  # and the connection ends

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "BLOCK", 512)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server, folder, pinned=PINNED):
    fetch(server.url, folder / "corpus.tar.gz", pinned, pause=0.0)
    return (folder / "corpus.tar.gz").read_bytes()


def test_a_file_that_comes_at_once_is_fetched_once_and_nothing_else_is_left(server, tmp_path):
    assert get(server, tmp_path) == CONTENT
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.tar.gz"]


def test_dropped_connections_are_resumed_where_they_ended(server, tmp_path):
    server.answers = [{"drop": 3000}, {"drop": 2000}, {"drop": 1}]
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [0, 3000, 5000, 5001]


def test_without_a_pinned_size_a_dropped_connection_is_known_by_the_promised_length(server, tmp_path):
    server.answers = [{"drop": 3000}]
    assert get(server, tmp_path, pinned=None) == CONTENT
    assert server.asked == [0, 3000]


def test_an_answer_without_a_length_that_ends_too_soon_is_resumed(server, tmp_path):
    server.answers = [{"drop": 3000, "length": False}]
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [0, 3000]


def test_any_number_of_drops_is_borne_as_long_as_each_brings_something(server, tmp_path):
    server.answers = [{"drop": 200}] * 50
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [200 * n for n in range(51)]


def test_a_server_that_ignores_ranges_begins_anew_and_nothing_is_appended(server, tmp_path):
    server.answers = [{"drop": 3000}, {"status": 200}]
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [0, 3000]


def test_a_server_that_sends_another_range_is_asked_for_all_of_it(server, tmp_path):
    server.answers = [{"drop": 3000}, {"moved": 10}]
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [0, 3000, 0]


def test_a_server_that_always_drops_at_the_same_byte_is_given_up_and_what_came_is_kept(server, tmp_path):
    server.answers = [{"status": 200, "drop": 3000}] * 7
    with pytest.raises(ValueError, match="the connection ended at 3000 of 10240 bytes.* another run goes on from ther"):
        get(server, tmp_path)
    assert len(server.asked) == 7
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("corpus.tar.gz.part", 3000)]
    assert get(server, tmp_path) == CONTENT
    assert server.asked[7:] == [3000]


def test_busy_servers_are_asked_again_and_missing_files_are_not(server, tmp_path):
    server.answers = [{"status": 503}, {"status": 429}]
    assert get(server, tmp_path) == CONTENT
    server.answers = [{"status": 404}]
    with pytest.raises(ValueError, match="cannot be fetched .*404"):
        get(server, tmp_path / "another")
    assert server.asked == [0, 0, 0, 0]


@pytest.mark.parametrize(("content", "reason"), [
    (CONTENT[:-1], "10239 bytes, where the publisher's has 10240"),
    (CONTENT + b"x", "10241 bytes, where the publisher's has 10240"),
    (b"x" + CONTENT[1:], "sha256 .*, where the publisher's has 10240 and"),
], ids=["short", "long", "other bytes"])
def test_a_wrong_file_is_thrown_away_fetched_anew_then_refused(server, tmp_path, content, reason):
    server.answers = [{"content": content}]
    assert get(server, tmp_path / "once") == CONTENT
    server.answers = [{"content": content}] * 2
    with pytest.raises(ValueError, match=f"not the file that was expected, twice .*{reason}"):
        get(server, tmp_path / "twice")
    assert list((tmp_path / "twice").iterdir()) == []


def test_more_bytes_than_pinned_are_not_written(server, tmp_path):
    server.answers = [{"content": 100 * CONTENT, "length": False}] * 2
    with pytest.raises(ValueError, match="more than the 10240 bytes"):
        get(server, tmp_path)


def test_what_a_killed_run_left_is_gone_on_with_and_checked(server, tmp_path):
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT[:4000])
    assert get(server, tmp_path) == CONTENT
    (tmp_path / "corpus.tar.gz").rename(tmp_path / "corpus.tar.gz.part")
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [4000]

    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/corpus.tar.gz.part").write_bytes(b"x" * 4000)  # of another file
    assert get(server, tmp_path / "bad") == CONTENT
    assert server.asked == [4000, 4000, 0]


def test_a_part_longer_than_the_servers_file_is_thrown_away(server, tmp_path):
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT + b"x")
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [len(CONTENT) + 1, 0]


def test_a_disk_without_room_is_said_before_anything_is_fetched(server, tmp_path):
    with pytest.raises(OSError, match="1000000000.0 GB are to come"):
        get(server, tmp_path, Pinned(10**18, "md5", "0"))
    assert server.asked == []


def test_a_full_disk_is_no_reason_to_try_again(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "receive", full)
    with pytest.raises(OSError, match="No space left on device: '.*corpus.tar.gz.part'"):
        get(server, tmp_path)


def test_without_a_server_the_address_is_named(tmp_path):
    with pytest.raises(ValueError, match="127.0.0.1:9/x: cannot be fetched"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", pause=0.0)
    with pytest.raises(ValueError, match="none: cannot be fetched"):
        fetch((tmp_path / "none").as_uri(), tmp_path / "x")


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 4 * (kind == tarfile.REGTYPE)
    return info


def pack(path, *members: tarfile.TarInfo):
    with tarfile.open(path, "w:gz") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"data"[:info.size]))
    return path


def test_what_is_renamed_out_of_an_unpacked_archive_stays_and_the_rest_goes(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", member("corpus/a"), member("corpus/b"))
    (tmp_path / "a.tar.gz.unpacked/corpus").mkdir(parents=True)  # what a killed run left
    (tmp_path / "a.tar.gz.unpacked/corpus/old").touch()
    with unpacked(archive) as folder:
        assert sorted(path.name for path in (folder / "corpus").iterdir()) == ["a", "b"]
        (folder / "corpus/a").rename(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"data"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "kept"]


@pytest.mark.parametrize("hostile", [
    member("../evil"), member("corpus/../../evil"), member("{absolute}"),
    member("corpus/link", tarfile.SYMTYPE, "{absolute}"), member("corpus/link", tarfile.SYMTYPE, "../../evil"),
    member("corpus/link", tarfile.SYMTYPE, "a"), member("corpus/link", tarfile.LNKTYPE, "corpus/a"),
    member("corpus/link", tarfile.LNKTYPE, "../evil"), member("corpus/pipe", tarfile.FIFOTYPE),
    member("corpus/disk", tarfile.BLKTYPE), member("corpus/terminal", tarfile.CHRTYPE),
], ids=lambda info: f"{info.type.decode()} {info.name} {info.linkname}")
def test_a_hostile_member_is_refused_by_name_and_nothing_is_left(tmp_path, hostile):
    hostile.name = hostile.name.replace("{absolute}", str(tmp_path / "evil"))
    hostile.linkname = hostile.linkname.replace("{absolute}", str(tmp_path / "evil"))
    archive = pack(tmp_path / "a.tar.gz", member("corpus/a"), hostile, member("corpus/link"))
    with pytest.raises(ValueError, match=f"a.tar.gz: its member .*{hostile.name.split('/')[-1]}.* refused"):
        with unpacked(archive):
            pytest.fail("it was unpacked")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_half_an_archive_is_refused_and_nothing_is_left(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", *(member(f"corpus/{n}") for n in range(200)))
    whole = archive.read_bytes()
    for content in (whole[:len(whole) // 2], whole[:40], b"<html>", b""):
        archive.write_bytes(content)
        with pytest.raises(ValueError, match="a.tar.gz: damaged, or no archive"):
            with unpacked(archive):
                pytest.fail("it was unpacked")
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
