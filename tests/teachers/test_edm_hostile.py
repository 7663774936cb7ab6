"""Hostile checkpoints: payloads, steps that none needs, sound files with random damage; nothing is ever executed."""

import copyreg
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pickletools import genops

import numpy as np
import pytest
import torch
from edm_files import (
    Claimed,
    Evil,
    OldFloat,
    Persistent,
    Storage,
    changed,
    dumps,
    load,
    refused,
    saved,
    small,
    state_of,
    weight,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simdistill.teachers import pickled_tensors
from simdistill.teachers.edm import read_edm


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that payloads create, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "marker"


WRITE = "open('marker', 'w').close()"
SYSTEM = b"c" + os.system.__module__.encode() + b"\nsystem\n"
PAYLOADS = {
    "os.system": lambda: pickle.dumps(Evil(os.system, "touch marker"), 4),
    "subprocess": lambda: pickle.dumps(Evil(subprocess.call, ["touch", "marker"]), 4),
    "eval": lambda: pickle.dumps(Evil(eval, WRITE), 4),
    "exec": lambda: pickle.dumps(Evil(exec, WRITE), 2),
    "open": lambda: pickle.dumps(Evil(open, "marker", "w"), 4),
    "text protocol": lambda: SYSTEM + b"(S'touch marker'\ntR.",
    "inst": lambda: b"(S'touch marker'\ni" + SYSTEM[1:] + b".",
    "obj": lambda: b"(" + SYSTEM + b"S'touch marker'\no.",
    "extension": lambda: b"\x80\x02\x82\xf0X\x0c\x00\x00\x00touch marker\x85R.",
    "dotted": lambda: b"\x80\x04\x8c\x06shutil\x8c\x09os.system\x93\x8c\x0ctouch marker\x85R.",
    "memo": lambda: b"\x80\x04\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93\x8c\x0ctouch marker\x85R.",
}
SILENT = {  # which Python refuses, or which do nothing by themselves, but no checkpoint needs them
    "new object": b"\x80\x04csubprocess\nPopen\n](\x8c\x05touch\x8c\x06markere\x85\x81.",
    "new object with names": b"\x80\x04csubprocess\nPopen\n)}\x8c\x04args](\x8c\x05touch\x8c\x06markeres\x92.",
    "persistent id": b"\x80\x04\x8c\x01aQ.",
    "text persistent id": b"Pmarker\n.",
    "state of a name": b"\x80\x04ccollections\nOrderedDict\n}\x8c\x05items\x8c\x01xsb.",
    "inside of an allowed name": b"\x80\x04\x8c\x0btorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93.",
    "another of an allowed module": b"\x80\x04\x8c\x0btorch._utils\x8c\x0c_import_dotted_name\x93.",
    "call of a value": b"\x80\x04K\x01K\x02\x85R.",
    "call of a call": b"\x80\x04cnumpy\ndtype\n)R)R.",
    "call without a tuple": b"\x80\x04cnumpy\ndtype\n]R.",
    "state of a value": b"\x80\x04K\x01}b.",
    "key without a hash": b"\x80\x04}]K\x01s.",
    "key that is a deep tuple": b"\x80\x04}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
    "set of lists": b"\x80\x04\x8f(]\x90.",
    "pairs with one missing": b"\x80\x04}(\x8c\x01a\x8c\x01b\x8c\x01cu.",
    "large memo": b"\x80\x04Nr\xff\xff\xff\xffj\x00\x00\x00\xff.",
    "memo of nothing": b"\x80\x04\x94.",
    "unknown memo": b"\x80\x04h\x07.",
    "endless bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "endless text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
    "endless frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fK\x01.",
    "large number": b"\x80\x04\x8b\xff\xff\xff\x7f.",
    "open mark": b"\x80\x04(K\x01.",
    "two values": b"\x80\x04K\x01K\x02.",
    "nothing": b"\x80\x04.",
    "end of a list that was not begun": b"\x80\x04K\x01e.",
    "not Unicode": b"\x80\x04\x8c\x02\xff\xff.",
    "buffer": b"\x80\x05\x97.",
    "bytearray": b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00x.",
    "name in two lines": b"cos\n\n.",
}


@pytest.fixture
def extension():
    """A registered extension code, as `inst` and `obj` one of the ways to a name besides GLOBAL."""
    copyreg.add_extension(os.system.__module__, "system", 240)
    yield
    copyreg.remove_extension(os.system.__module__, "system", 240)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_runs(name, marker):
    payload = PAYLOADS[name]()
    process = pickle.loads(payload)  # it would
    if isinstance(process, subprocess.Popen):
        process.wait()
    elif isinstance(process, io.IOBase):
        process.close()
    marker.unlink()
    assert re.match(r"(asks for '|has the step )", refused(payload))
    assert not marker.exists()


@pytest.mark.parametrize("name", SILENT)
def test_no_step_is_taken_that_no_checkpoint_needs(name):
    assert re.search("do not trust it|download it again|name one of EDM's .pkl files", refused(SILENT[name]))


PLACES = {
    "beside ema": lambda c, evil: c.update(augment_pipe=evil),
    "ema": lambda c, evil: c.update(ema=evil),
    "a class": lambda c, evil: c["ema"].meta.update(class_name=evil),
    "a setting": lambda c, evil: state_of(c, "model")["_init_kwargs"].update(dropout=evil),
    "an attribute": lambda c, evil: state_of(c, "model", "enc").update(hook=evil),
    "a tensor": lambda c, evil: weight(c, evil),
    "a storage": lambda c, evil: weight(c, Claimed(Storage(evil), 0, (16, 4), (4, 1))),
}


@pytest.mark.parametrize("name", PLACES)
def test_no_payload_runs_wherever_it_stands(name, marker):
    content = changed(lambda c: PLACES[name](c, Evil(os.system, "touch marker")))
    assert re.match(
        f"asks for '{os.system.__module__}.system', which no checkpoint needs: do not trust it", refused(content)
    )
    assert not marker.exists()


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", PAYLOADS["os.system"]())
        file.writestr("archive/version", "3")
    return buffer.getvalue()


HEADER = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
NESTED = {
    "a bare pickle": lambda: PAYLOADS["os.system"](),
    "as torch.save's object": lambda: saved(Evil(os.system, "touch marker"), _use_new_zipfile_serialization=False),
    "after the magic number": lambda: pickled_tensors._MAGIC + PAYLOADS["os.system"](),
    "in a zip archive": archive,
    "as torch.save's object in a zip archive": lambda: saved(Evil(os.system, "touch marker")),
    "for its keys": lambda: b"".join(
        pickle.dumps(part, 2)
        for part in (torch.serialization.MAGIC_NUMBER, 1001, HEADER, 0, [Evil(os.system, "touch marker")])
    ),
    "for its system": lambda: b"".join(
        pickle.dumps(part, 2)
        for part in (torch.serialization.MAGIC_NUMBER, 1001, Evil(os.system, "touch marker"), 0, [])
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_no_payload_runs_from_the_bytes_of_a_storage(name, marker):
    content = changed(lambda c: weight(c, Claimed(Storage(NESTED[name]()), 0, (16, 4), (4, 1))))
    if name != "after the magic number":
        try:  # what torch's own reading does with them
            torch.load(io.BytesIO(NESTED[name]()), weights_only=False)
        except Exception:  # after the payload
            assert marker.exists()
        marker.unlink(missing_ok=True)
    assert re.match(r"has (no intact storage|a storage of an unknown format or size) for", refused(content))
    assert not marker.exists()


def test_source_code_in_a_checkpoint_is_not_run(marker):
    content = small()
    for found in (content["ema"], content["ema"].state["_modules"]["model"], content["loss_fn"]):
        found.meta["module_src"] = WRITE
    assert load(content).shape == (3, 2, 2)
    assert not marker.exists()


GENUINE = dumps(small())
INSERTS = [
    b"0",
    b"Q",
    b"R",
    b"b",
    b"\x81",
    b"\x92",
    b"\x82\xf0",
    b"\x93",
    b"\x94",
    SYSTEM,
    b"\x8c\x02os\x8c\x06system\x93",
    b"(",
    b"t",
    b"e",
    b"u",
]
STRUCTURE = [position for _, _, position in genops(GENUINE)]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_checkpoints_run_nothing_and_raise_only_value_errors(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[os.system.__module__], "system", lambda *_: pytest.fail("a call was made"))
    content = bytearray(GENUINE)
    for _ in range(data.draw(st.integers(1, 4))):
        # at a step, or behind it in its argument
        at = min(data.draw(st.sampled_from(STRUCTURE)) + data.draw(st.integers(0, 6)), len(content) - 1)
        how = data.draw(st.sampled_from(["flip", "insert", "delete", "copy"]))
        if how == "flip":
            content[at] = data.draw(st.integers(0, 255))
        elif how == "insert":
            content[at:at] = data.draw(st.sampled_from(INSERTS))
        elif how == "delete":
            del content[at : at + data.draw(st.integers(1, 40))]
        else:
            source = data.draw(st.sampled_from(STRUCTURE))
            content[at:at] = content[source : source + data.draw(st.integers(1, 200))]
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    try:
        said = f"{path}: {read_edm(path).shape}"  # a change that does not matter
    except ValueError as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    assert len(said.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def slots(found):
    """Every place of a value in a tree, as a dict and a key."""
    if isinstance(found, Persistent):
        yield from ((found.meta, key) for key in found.meta)
        yield from slots(found.state)
    elif isinstance(found, torch.nn.ModuleDict):
        yield from slots(found.__dict__)
    elif isinstance(found, dict):
        for key, value in found.items():
            yield found, key
            yield from slots(value)


ODD = [
    None,
    True,
    0,
    -1,
    3,
    2**16,
    2**40,
    -0.0,
    1e300,
    float("inf"),
    float("nan"),
    "",
    "x",
    "8",
    b"x",
    (),
    [],
    {},
    set(),
]
ODD += [
    [2**40],
    [None],
    [[]],
    {"a": 1},
    {1: 2},
    {"": None},
    np.float64("nan"),
    np.int32(7),
    torch.zeros(2),
    torch.zeros(()),
]
ODD += [Evil(os.system, "touch marker"), OldFloat(2.0), Storage(b""), Claimed(7, 0, (), ()), torch.nn.ModuleDict()]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_odd_values_anywhere_raise_only_value_errors(tmp_path, data):
    content = small()
    for _ in range(data.draw(st.integers(1, 2))):
        places = list(slots(content))
        place, key = places[data.draw(st.integers(0, len(places) - 1))]
        if data.draw(st.booleans()):
            place[key] = ODD[data.draw(st.integers(0, len(ODD) - 1))]
        else:
            place[data.draw(st.sampled_from(["", "x", 3, None, "ema", "model"]))] = place[key]
    path = tmp_path / "x.pkl"
    path.write_bytes(dumps(content))
    try:
        said = f"{path}: {read_edm(path).shape}"
    except ValueError as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    assert len(said.splitlines()) == 1
