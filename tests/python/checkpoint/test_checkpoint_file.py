"""Checkpoint files: reading and writing, other programs, and damaged files."""

from __future__ import annotations

import errno
import json
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoptim.checkpoint import Reader, Tensor, write
from fastoptim.checkpoint import header as header_module
from fastoptim.checkpoint import pieces as pieces_module
from fastoptim.checkpoint.header import START, signed
from fastoptim.checkpoint.validation import decode
from fastoptim.errors import CheckpointError

DTYPES = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8", "c8", "bfloat16"]
SHAPES = [(), (0,), (3, 0, 2), (1,), (5,), (2, 3), (1, 2, 1, 3), (257, 3)]
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


def dtype_of(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        name = pytest.importorskip("ml_dtypes").bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def values(dtype: str, shape: tuple[int, ...]) -> Any:
    rng = np.random.default_rng(len(shape))
    return rng.integers(0, 2 if dtype == "?" else 100, shape).astype(dtype_of(dtype))


def small(path: Path) -> dict[str, Any]:
    """Write a file of a few hundred bytes with every kind of content."""
    arrays = {
        "model.w": np.arange(6, dtype="f4").reshape(2, 3),
        "flag": np.array([True, False, True]),
        "step": np.array(7, "i8"),
        "none": np.zeros((0, 2), "f8"),
    }
    write(path, [Tensor(name, array) for name, array in arrays.items()], {"note": "ä 1"})
    return arrays


def loaded(path: Path) -> dict[str, Any]:
    with Reader(path) as reader:
        return reader.read(reader.entries)


def temporaries(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.startswith(".fastoptim-")]


def run(script: str, *arguments: object) -> str:
    """Run a script in a separate process, and return its output."""
    before = "import os, sys\nimport numpy as np\nfrom fastoptim.checkpoint import *\n"
    done = subprocess.run(
        [sys.executable, "-c", before + textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@given(st.integers(0, 2**20), st.integers(0, 63), st.integers(0, 2**32 - 1))
def test_checksums_are_those_of_zlib(size: int, start: int, value: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, start + size % 70_000, np.uint8)[start:]
    assert pieces_module.crc32(data, value) == zlib.crc32(data.tobytes(), value)
    assert pieces_module.crc32(data.tobytes(), value) == zlib.crc32(data.tobytes(), value)


# Reading and writing.


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: str) -> None:
    arrays = {f"a{shape}": values(dtype, shape) for shape in SHAPES}
    write(tmp_path / "f", [Tensor(name, array) for name, array in arrays.items()], {"k": "v"})
    with Reader(tmp_path / "f") as reader:
        back = reader.read(arrays)
        assert (dict(reader.metadata), reader.version) == ({"k": "v"}, 1)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_programs_read_the_files(tmp_path: Path, dtype: str) -> None:
    safetensors = pytest.importorskip("safetensors")
    arrays = {f"a{shape}": values(dtype, shape) for shape in SHAPES}
    write(tmp_path / "f", [Tensor(name, array) for name, array in arrays.items()], {"k": "ä"})
    with safetensors.safe_open(tmp_path / "f", framework="numpy") as file:
        assert file.metadata()["k"] == "ä"
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            there = file.get_tensor(name)
            assert there.dtype == array.dtype
            np.testing.assert_array_equal(there, array)


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = {"a": np.arange(5.0), "b": np.array([True, False])}
    numpy.save_file(arrays, tmp_path / "f", {"k": "v"})
    with Reader(tmp_path / "f") as reader:
        assert (dict(reader.metadata), reader.version) == ({"k": "v"}, None)
        for name, array in reader.read(arrays).items():
            np.testing.assert_array_equal(array, arrays[name], strict=True)


def test_a_file_of_ours_that_another_program_rewrote_is_refused(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    numpy = pytest.importorskip("safetensors.numpy")
    small(tmp_path / "f")
    with safetensors.safe_open(tmp_path / "f", framework="numpy") as file:
        numpy.save_file({"step": file.get_tensor("step")}, tmp_path / "g", file.metadata())
    with pytest.raises(CheckpointError, match="checksum"):
        Reader(tmp_path / "g")


def test_a_file_without_tensors(tmp_path: Path) -> None:
    write(tmp_path / "f", [])
    assert loaded(tmp_path / "f") == {}


def test_arrays_that_are_not_contiguous_are_written_in_c_order(tmp_path: Path) -> None:
    base = np.random.default_rng(0).standard_normal((700, 600))
    arrays = {"T": base.T, "step": base[::3, ::-2], "broadcast": np.broadcast_to(base[0], (9, 600))}
    write(tmp_path / "f", [Tensor(name, array) for name, array in arrays.items()])
    for name, array in loaded(tmp_path / "f").items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


def test_data_are_aligned_for_their_dtypes(tmp_path: Path) -> None:
    arrays = [values(dtype, (3,)) for dtype in DTYPES[:-1]]
    write(tmp_path / "f", [Tensor(str(i), array) for i, array in enumerate(arrays)])
    head = int.from_bytes((tmp_path / "f").read_bytes()[:8], "little")
    assert (8 + head) % 64 == 0
    with Reader(tmp_path / "f") as reader:
        for i, array in enumerate(arrays):
            assert reader.entries[str(i)].start % array.itemsize == 0


def test_bytes_of_bfloat16_need_no_package(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC000], np.uint16)
    write(tmp_path / "f", [Tensor("w", bits, "BF16")])
    there = np.zeros_like(bits)
    with Reader(tmp_path / "f") as reader:
        assert reader.entries["w"].dtype == "BF16"
        reader.fill({"w": there})
    np.testing.assert_array_equal(there, bits)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    expected = np.array([1, -2], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(loaded(tmp_path / "f")["w"], expected, strict=True)


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "match"),
    [
        ([Tensor("a", np.array([None]))], {}, TypeError, "'a'.*not supported in a checkpoint"),
        ([Tensor("a", np.array(["x"]))], {}, TypeError, "not supported"),
        ([Tensor("a", np.ones(2, ">f4"))], {}, TypeError, "not supported"),
        ([Tensor("a", np.ones(2, "f4"), "F64")], {}, TypeError, "4 bytes, not those of F64"),
        ([Tensor("a", np.ones(2)), Tensor("a", np.ones(2))], {}, ValueError, "'a' appears twice"),
        ([Tensor("__metadata__", np.ones(2))], {}, ValueError, "reserved"),
        ([Tensor("\ud800", np.ones(2))], {}, ValueError, "Unicode"),
        ([Tensor(1, np.ones(2))], {}, TypeError, "names must be strings"),  # type: ignore[arg-type]
        ([], {"k": 1}, TypeError, "metadata must be strings"),
        ([], {"fastoptim.x": "1"}, ValueError, "must not start"),
    ],
)
def test_invalid_tensors_are_refused_before_the_file_is_changed(
    tmp_path: Path, tensors: Any, metadata: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        write(tmp_path / "f", tensors, metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_module, "LIMIT", 1000)
    with pytest.raises(ValueError, match="more than 1000"):
        write(tmp_path / "f", [], {"k": "x" * 1000})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", [np.ones(3), np.ones((2, 4))[:, ::2], np.broadcast_to(1.0, 4)])
def test_only_memory_that_fits_is_filled(tmp_path: Path, made: Any) -> None:
    write(tmp_path / "f", [Tensor("a", np.ones(4))])
    with Reader(tmp_path / "f") as reader, pytest.raises(ValueError, match="'a'"):
        reader.fill({"a": made})


def test_a_missing_name_is_in_the_message(tmp_path: Path) -> None:
    small(tmp_path / "f")
    with Reader(tmp_path / "f") as reader, pytest.raises(CheckpointError, match=r"f has no 'x'"):
        reader.read(["x"])


# Memory and time.


@pytest.mark.parametrize("order", ["C", "F"])
def test_no_second_copy_is_held(tmp_path: Path, order: Any) -> None:
    array = np.zeros((2000, 2000), order=order)
    tracemalloc.start()
    try:
        write(tmp_path / "f", [Tensor("a", array)])
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**20
        tracemalloc.reset_peak()
        loaded(tmp_path / "f")
        assert tracemalloc.get_traced_memory()[1] < array.nbytes + 2**20
    finally:
        tracemalloc.stop()


def test_each_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path / "f")
    counts = []
    fill = Reader._fill

    def counted(self: Reader, memory: memoryview) -> None:
        counts.append(memory.nbytes)
        fill(self, memory)

    monkeypatch.setattr(Reader, "_fill", counted)
    loaded(tmp_path / "f")
    assert sum(counts) == (tmp_path / "f").stat().st_size


def test_large_files_show_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    def bar(items: Any, total: int, what: str, *, quiet: bool) -> Iterator[None]:
        done = 0
        for item in items:
            done += 1
            yield item
        bars.append((done, total, what, quiet))

    monkeypatch.setattr(pieces_module, "progress", bar)
    monkeypatch.setattr(pieces_module, "PIECE", 64)
    path = tmp_path / "f"
    for size, quiet in [(511, False), (500, False), (511, True)]:
        write(path, [Tensor("a", np.ones(size)), Tensor("b", np.ones(0))], quiet=quiet)
        with Reader(path) as reader:
            reader.read(["a", "b"], quiet=quiet)
    expected = [(64, False), (63, True), (64, True)]
    assert bars == [
        (count, count, f"{verb} {path}", hidden)
        for count, hidden in expected
        for verb in ("save", "load")
    ]


# Damage.


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    small(path)
    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        with pytest.raises(CheckpointError, match=r"cut: its? "):
            Reader(path)


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "flipped"
    small(path)
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(path.read_bytes()):
            for bit in range(8):
                file.seek(place)
                file.write(bytes([byte ^ 1 << bit]))
                with pytest.raises(CheckpointError, match="flipped: "):
                    loaded(path)
            file.seek(place)
            file.write(bytes([byte]))
    assert len(loaded(path)) == 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "f"
    small(path)
    return path.read_bytes()


@given(data=st.data())
def test_any_damaged_run_of_bytes_is_found(whole: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(whole) - 4))
    # A 32-bit checksum detects any run of up to 32 bits.
    new = data.draw(
        st.binary(min_size=1, max_size=4).filter(lambda new: new != whole[start:][: len(new)])
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        path.write_bytes(whole[:start] + new + whole[start + len(new) :])
        with pytest.raises(CheckpointError):
            loaded(path)


@pytest.mark.parametrize("more", [b"\0", b" ", b"x" * 100])
def test_trailing_bytes_are_refused(tmp_path: Path, more: bytes) -> None:
    small(tmp_path / "f")
    with (tmp_path / "f").open("ab") as file:
        file.write(more)
    with pytest.raises(CheckpointError, match=f"{len(more)} bytes follow the last tensor"):
        Reader(tmp_path / "f")


def test_a_file_that_is_cut_while_it_is_read_is_found(tmp_path: Path) -> None:
    small(tmp_path / "f")
    with Reader(tmp_path / "f") as reader:
        os.truncate(tmp_path / "f", (tmp_path / "f").stat().st_size - 1)
        with pytest.raises(CheckpointError, match="f: it was cut off while"):
            reader.read(reader.entries)


# Hostile headers.


def forged(header: Any) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def tensor(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def ours(metadata: dict[str, str], **tensors: Any) -> bytes:
    """Return a header with a valid checksum."""
    metadata = {"fastoptim.header": "0" * 8, **metadata}
    text = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
    return signed(forged(text))


V1 = {"fastoptim.format": "1"}
HOSTILE = {
    "huge length": ((2**63).to_bytes(8, "little") + b"{}", "should have 9223372036854775808"),
    "length beyond the file": ((1000).to_bytes(8, "little") + b"{}", "should have 1000 bytes"),
    "length 0": (bytes(8) + b"{}", "should have 0"),
    "no JSON": (forged(b"{..}"), "not valid JSON"),
    "two values": (forged(b"{}{}"), "not valid JSON"),
    "no UTF-8": (forged(b'{"\xff": 1}'), "not valid JSON"),
    "half a surrogate pair": (forged(b'{"\\ud800": 1}'), "not valid JSON"),
    "a long number": (forged(b'{"a":' + b"9" * 5000 + b"}"), "not valid JSON"),
    "deep": (forged(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
    "deep objects": (forged(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested too deeply"),
    "duplicate name": (forged(b'{"a":1,"a":1}'), "'a' appears twice"),
    "duplicate metadata": (forged(b'{"__metadata__":{"k":"","k":""}}'), "'k' appears twice"),
    "metadata list": (forged({"__metadata__": []}), "metadata"),
    "metadata number": (forged({"__metadata__": {"k": 1}}), "metadata"),
    "entry list": (forged({"a": []}), "not described"),
    "entry short": (forged({"a": {"dtype": "F32"}}), "not described"),
    "entry more": (forged({"a": {**tensor(), "x": 1}}), "not described"),
    "unknown dtype": (forged({"a": tensor("F8_E4M3")}), "'a' has dtype 'F8_E4M3'"),
    "dtype list": (forged({"a": tensor(["F32"])}), "dtype"),
    "shape float": (forged({"a": tensor(shape=[2.0])}), "shape"),
    "shape bool": (forged({"a": tensor(shape=[True, 2])}), "shape"),
    "shape negative": (forged({"a": tensor(shape=[-1, -2])}), "shape"),
    "shape text": (forged({"a": tensor(shape="2")}), "shape"),
    "shape overflow": (forged({"a": tensor(shape=[2**62, 2**62], offsets=[0, 0])}), "shape"),
    "shape overflow, empty": (forged({"a": tensor(shape=[2**62, 4, 0], offsets=[0, 0])}), "shape"),
    "shape beyond 64 bits": (forged({"a": tensor(shape=[2**70, 0], offsets=[0, 0])}), "shape"),
    "many dimensions": (forged({"a": tensor(shape=[1] * 65, offsets=[0, 4])}), "shape"),
    "offsets one": (forged({"a": tensor(offsets=[8])}), "data_offsets"),
    "offsets three": (forged({"a": tensor(offsets=[0, 8, 8])}), "data_offsets"),
    "offsets negative": (forged({"a": tensor(offsets=[-8, 0])}), "data_offsets"),
    "offsets null": (forged({"a": tensor(offsets=None)}), "data_offsets"),
    "offsets reversed": (forged({"a": tensor(offsets=[8, 0])}), "has -8 bytes"),
    "offsets of another size": (forged({"a": tensor(offsets=[0, 7])}), "has 7 bytes"),
    "hole": (forged({"a": tensor(offsets=[4, 12])}), "'a' follows a hole"),
    "overlap": (forged({"a": tensor(), "b": tensor(offsets=[4, 12])}), "'b' overlaps"),
    "same": (forged({"a": tensor(), "b": tensor()}), "'b' overlaps"),
    "beyond the file": (forged({"a": tensor(shape=[10**9], offsets=[0, 4 * 10**9])}), "cut off"),
    "newer": (ours({"fastoptim.format": "2"}), "format version 2, .* reads up to 1"),
    "no version": (ours({}), "format version is ''"),
    "version 0": (ours({"fastoptim.format": "0"}), "format version is '0'"),
    "version text": (ours({"fastoptim.format": "\u0661"}), "format version is"),
    "no checksums": (ours(V1), "checksums are not numbers"),
    "checksum text": (ours({**V1, "fastoptim.crc32": "x"}, a=tensor()), "are not numbers"),
    "too few checksums": (ours({**V1, "fastoptim.crc32": ""}, a=tensor()), "0 checksums for 1"),
    "too many checksums": (ours({**V1, "fastoptim.crc32": "0"}), "1 checksums for 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused(tmp_path: Path, case: str) -> None:
    content, match = HOSTILE[case]
    path = tmp_path / "model"
    path.write_bytes(content + (bytes(8) if b"data_offsets" in content else b""))
    with pytest.raises(CheckpointError, match=f"{path}: .*{match}"):
        Reader(path)


def test_a_bool_is_0_or_1(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(forged({"a": tensor("BOOL", [3], [0, 3])}) + b"\0\1\2")
    with pytest.raises(CheckpointError, match="f: 'a' is damaged"):
        loaded(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
SIZES = st.lists(st.integers(-1, 9), max_size=3) | JSON
ENTRIES = JSON | st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16", "BOOL"]) | JSON,
        "shape": SIZES,
        "data_offsets": SIZES,
    }
)
NAMES = st.sampled_from(["a", "b", "__metadata__"]) | st.text(max_size=3)


def check_decoded(whole: bytes, size: int) -> None:
    try:
        header = decode(whole, size)
    except ValueError:
        return
    spans = sorted((entry.start, entry.stop) for entry in header.entries)
    assert [0, *(stop for _, stop in spans)] == [*(start for start, _ in spans), size]


@given(st.dictionaries(NAMES, ENTRIES, max_size=3), st.integers(0, 40), st.booleans())
def test_a_header_is_valid_or_refused(header: Any, size: int, sign: bool) -> None:
    whole = forged(header)
    if sign:
        text = START + b'00000000","fastoptim.format":"1","fastoptim.crc32":"0 0"},'
        whole = signed(forged(text + json.dumps(header).encode()[1:]))
    check_decoded(whole, size)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    check_decoded(forged(b"{" + content), 0)


# Other files.


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_is_named_and_never_unpickled(tmp_path: Path, protocol: int) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "unpickled",))

    (tmp_path / "f").write_bytes(pickle.dumps(Trap(), protocol))
    with pytest.raises(CheckpointError, match=r"f: .*looks like a pickle, which is never"):
        Reader(tmp_path / "f")
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("save", "match"),
    [
        (lambda file: np.savez(file, a=np.ones(3)), "zip archive of numpy.savez, or of torch.save"),
        (lambda file: np.save(file, np.ones(3)), "an array of numpy.save"),
        (lambda file: file.write(b""), "it is empty"),
        (lambda file: file.write(b"plain text"), "not a safetensors file$"),
        (lambda file: file.write(b"{}"), "not a safetensors file$"),
    ],
)
def test_other_files_are_named(tmp_path: Path, save: Callable[[Any], None], match: str) -> None:
    with (tmp_path / "f").open("wb") as file:
        save(file)
    with pytest.raises(CheckpointError, match=f"f: .*{match}"):
        Reader(tmp_path / "f")


@posix
def test_only_regular_files_are_read_and_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name, what in {
        ".": "a directory",
        "pipe": "not a regular file",
        "link": "not a regular",
    }.items():
        path = tmp_path / name
        with pytest.raises(CheckpointError, match=f"{path} is {what}"):
            Reader(path)
        with pytest.raises(CheckpointError, match=f"{path} is {what}"):
            write(path, [])
    with pytest.raises(CheckpointError, match="/ is a directory"):
        write("/", [])
    assert not temporaries(tmp_path)


# Replacing files.


@posix
def test_modes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "f"
    old = os.umask(0o027)
    try:
        small(path)
        assert path.stat().st_mode & 0o777 == 0o640
        for mode in (0o600, 0o666, 0o755):
            path.chmod(mode)
            small(path)
            assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(old)
    assert not temporaries(tmp_path)


@posix
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, dangling: bool) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "f"
    if not dangling:
        target.write_bytes(b"old")
    (tmp_path / "link").symlink_to(Path("there") / "f")
    arrays = small(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert loaded(target).keys() == arrays.keys()
    assert [path.name for path in target.parent.iterdir()] == ["f"]


def test_the_longest_name_can_be_saved(tmp_path: Path) -> None:
    small(tmp_path / ("x" * 255))
    assert len(loaded(tmp_path / ("x" * 255))) == 4


def test_an_open_reader_keeps_its_file(tmp_path: Path) -> None:
    small(tmp_path / "f")
    with Reader(tmp_path / "f") as reader:
        if os.name != "nt":
            write(tmp_path / "f", [])
        assert reader.read(["step"])["step"] == 7


@posix
def test_the_file_is_synced_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        status = os.fstat(descriptor)
        calls.append("directory" if stat.S_ISDIR(status.st_mode) else status.st_size)
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> None:
        calls.append((self.parent, target))
        replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    small(tmp_path / "f")
    path = tmp_path / "f"
    assert calls == [path.stat().st_size, (tmp_path, path), "directory"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
@pytest.mark.parametrize(
    "place", ["os.fsync", "pathlib.Path.replace", "fastoptim.checkpoint.writer.crc32"]
)
def test_a_save_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    path = tmp_path / "f"
    small(path)
    before = path.read_bytes()

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(place, fail)
    with pytest.raises(type(error)) as caught:
        write(path, [Tensor("a", np.ones(3))])
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert str(caught.value) == f"[Errno {errno.ENOSPC}] No space left: '{path}'"
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["f"]


def test_a_missing_file_or_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'.*none'"):
        Reader(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"'.*none.f'"):
        write(tmp_path / "none" / "f", [])


@posix
def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path) -> None:
    small(tmp_path / "f")
    before = (tmp_path / "f").read_bytes()
    printed = run(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write(sys.argv[1], [Tensor("a", np.ones(100_000))])
        except OSError as error:
            print(error.errno, error.filename)
        """,
        tmp_path / "f",
    )
    assert printed.split() == [str(errno.EFBIG), str(tmp_path / "f")]
    assert (tmp_path / "f").read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["f"]


@posix
def test_permissions_are_respected() -> None:
    with tempfile.TemporaryDirectory() as root:
        printed = run(
            """
            import pathlib
            root = pathlib.Path(sys.argv[1])
            root.chmod(0o755)
            for name, mode in (("open", 0o777), ("closed", 0o555)):
                (root / name).mkdir()
                write(root / name / "f", [])
                (root / name / "f").chmod(0o444 if name == "open" else 0o666)
                (root / name).chmod(mode)
            write(root / "open" / "private", [])
            (root / "open" / "private").chmod(0)
            if os.getuid() == 0:
                os.setuid(65534)
            def attempt(call, *arguments):
                try:
                    call(*arguments)
                    print("done")
                except OSError as error:
                    print(type(error).__name__, error.filename == str(arguments[0]))
            attempt(write, root / "open" / "f", [])
            attempt(write, root / "closed" / "f", [])
            attempt(write, root / "closed" / "new", [])
            attempt(Reader, root / "open" / "private")
            print(sorted(os.listdir(root / "open")), os.listdir(root / "closed"))
            """,
            root,
        )
        Path(root, "closed").chmod(0o755)
    assert printed.splitlines() == ["PermissionError True"] * 4 + ["['f', 'private'] ['f']"]


@posix
@pytest.mark.alone
def test_a_killed_save_leaves_the_last_file_whole(tmp_path: Path) -> None:
    printed = run(
        """
        import random, signal, time
        path, delays, seen = sys.argv[1], random.Random(0), set()
        def save(number):
            tensors = [Tensor(name, np.full(100_000, number)) for name in "ab"]
            write(path, tensors, {"n": str(number)})
        save(0)
        for start in range(1, 21):
            child = os.fork()
            if not child:
                while True:
                    save(start)
                    start += 100
            time.sleep(delays.uniform(0.001, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            with Reader(path) as reader:
                number = int(reader.metadata["n"])
                for array in reader.read("ab").values():
                    assert (array == number).all()
            seen.add(number)
        print(len(seen))
        """,
        tmp_path / "f",
    )
    assert int(printed) > 1
    assert temporaries(tmp_path), "no save was killed on its way"
