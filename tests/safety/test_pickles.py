"""Files that carry code, one of each kind: none runs, and each is refused in a sentence."""

import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

import fovea
from fovea.data import index as folder_index
from fovea.data.decoding import open_file
from fovea.data.shard_index import Rows, ShardedSplit, StoredFile, read_rows
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.inference import read_checkpoint
from fovea.models import checkpoint as weights

TENSORS = {"a": torch.zeros(1)}


class Evil:
    """Runs ``touch marker`` when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class ObjectScalar(Evil):
    """A NumPy scalar of type object, whose value NumPy would unpickle by itself."""

    def __reduce__(self):
        scalar = np.float64(0).__reduce__()[0]
        return scalar, (np.dtype("O"), pickle.dumps(Evil(self.marker)))


def zipped(path, evil):
    torch.save({"state_dict": TENSORS, "x": evil}, path)


def legacy(path, evil):
    torch.save({"state_dict": TENSORS, "x": evil}, path, _use_new_zipfile_serialization=False)


def plain(path, evil):
    path.write_bytes(pickle.dumps(evil))


def old_protocol(path, evil):
    path.write_bytes(pickle.dumps(evil, protocol=0))


def old_tar(path, evil):
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(evil, protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def swapped(path, evil):
    whole = path.with_name("whole")
    torch.save({"state_dict": TENSORS}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = pickle.dumps(evil, protocol=2) if name.endswith("data.pkl") else None
            target.writestr(name, source.read(name) if data is None else data)


def scripted(path, evil):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)


def array(path, evil):
    np.save(path.open("wb"), np.array([evil], dtype=object), allow_pickle=True)


def scalar(path, evil):
    zipped(path, ObjectScalar(evil.marker))


KINDS = [zipped, legacy, plain, old_protocol, old_tar, swapped, scripted, array, scalar]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("read", [weights.read_checkpoint, read_checkpoint, fovea.load])
def test_a_checkpoint_with_code_is_refused(write, suffix, read, tmp_path):
    path, marker = tmp_path / f"w{suffix}", tmp_path / "marker"
    write(path, Evil(marker))
    with pytest.raises(FoveaError, match=r"w\.\w+.*(refused|not a readable|TorchScript|damaged)"):
        read(path)
    assert not marker.exists()


def test_the_marker_would_be_there_if_the_code_ran(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


def test_the_advice_for_a_file_with_a_strange_name_runs_nothing(tmp_path):
    path = tmp_path / "x'$(touch marker)\";touch marker;#.pth"
    zipped(path, Evil(tmp_path / "other"))
    with pytest.raises(FoveaError) as caught:
        weights.read_checkpoint(path)
    advice = str(caught.value).split("alone: ")[1]
    # Only its shell: python is replaced by true.
    os.system(f"cd {tmp_path} && {advice.replace('python -c', 'true', 1)}")
    assert not (tmp_path / "marker").exists()


def test_what_training_scripts_leave_beside_weights_is_read(tmp_path):
    import argparse

    beside = {"args": argparse.Namespace(lr=1), "best": np.float64(0.5)}
    torch.save({"state_dict": TENSORS, **beside}, tmp_path / "w.pth")
    assert weights.read_checkpoint(tmp_path / "w.pth")["best"] == 0.5


def object_npz(path, marker, **plain_arrays):
    evil = np.array([Evil(marker)], dtype=object)
    with path.open("wb") as file:
        np.savez(file, evil=evil, paths=evil, places=evil, labels=evil, logits=evil, **plain_arrays)


def test_a_kept_index_with_code_is_not_used(tmp_path, monkeypatch):
    root, cache, marker = tmp_path / "images", tmp_path / "cache", tmp_path / "marker"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "1.jpg").write_bytes(b"")
    cache.mkdir()
    monkeypatch.setenv("FOVEA_CACHE", str(cache))
    monkeypatch.setattr(folder_index, "SMALLEST_KEPT", 0)
    monkeypatch.setattr(folder_index, "SETTLED", -1)
    whole = folder_index.list_images(root, "", ["cat"])
    (file,) = cache.glob("index-*.npz")
    with np.load(file, allow_pickle=False) as arrays:
        header = arrays["header"]
    object_npz(file, marker, header=header)
    assert folder_index.list_images(root, "", ["cat"]).paths.tolist() == whole.paths.tolist()
    object_npz(file, marker)
    assert folder_index.list_images(root, "", ["cat"]).paths.tolist() == whole.paths.tolist()
    assert not marker.exists()


def test_rows_of_shards_with_code_are_refused(tmp_path):
    file, marker = tmp_path / "train.npz", tmp_path / "marker"
    object_npz(file, marker)
    split = ShardedSplit(images=1, rows=StoredFile.of(file), shards=[])
    with pytest.raises(FoveaError, match=r"train\.npz does not belong.*allow_pickle"):
        read_rows(file, split, 2)
    assert not marker.exists()


def test_rows_of_shards_that_unpack_to_any_size_are_refused(tmp_path):
    file = tmp_path / "train.npz"
    np.savez_compressed(file, places=np.zeros((10**6, 3), np.int64))
    split = ShardedSplit(images=10**6, rows=StoredFile.of(file), shards=[])
    with pytest.raises(FoveaError, match="packed"):
        read_rows(file, split, 2)


def test_a_pickle_in_a_shard_is_no_image(tmp_path):
    file, marker = tmp_path / "000.pickle", tmp_path / "marker"
    file.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(FoveaError, match=r"000\.pickle: not an image"):
        open_file(file)
    assert not marker.exists()


def test_stored_predictions_with_code_are_refused(tmp_path):
    file, marker = tmp_path / "p.npz", tmp_path / "marker"
    object_npz(file, marker)
    with pytest.raises(FoveaError):
        Predictions.load(file)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b", "..", "", ".hidden", "a\nb"])
def test_shards_do_not_leave_their_folder(name):
    with pytest.raises(ValueError, match="plain name"):
        ShardedSplit(images=1, rows=StoredFile("train.npz", 1, ""), shards=[(name, 1, "")])


def test_rows_are_read(tmp_path):
    places = torch.tensor([[0, 0, 4]])
    file = Rows.of(places, torch.tensor([1]), np.array([b"a"])).write(tmp_path / "train.npz")
    split = ShardedSplit(images=1, rows=file, shards=[StoredFile("0.tar", 4, "")])
    assert read_rows(tmp_path / "train.npz", split, 2).places.tolist() == places.tolist()
