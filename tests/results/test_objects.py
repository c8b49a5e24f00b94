"""Objects in a store: what is written where, which labels they are of, what is refused."""

import dataclasses
import itertools
import os
import pathlib
import time

import command
import numpy as np
import pytest
from cloud import standing_in
from scipy import ndimage
from skimage.measure import regionprops

import tiledlaf
from tiledlaf.errors import InputError, OutputBelongsElsewhere
from tiledlaf.files import folders, images, ngff, nodes, stores, units
from tiledlaf.labeling.output import CLAIMS
from tiledlaf.pool import tasks
from tiledlaf.pool.opening import Running
from tiledlaf.reports import status, text
from tiledlaf.results import leases, making, unfinished
from tiledlaf.results import objects as finding_objects
from tiledlaf.results.finding import Finding
from tiledlaf.results.result import open_result

NAMES = ["background", "cell nuclei"]
OPTIONS = {"prototypes": [[0.0], [1.0]], "names": NAMES, "tile": 32, "time": 0.5}


def noise(shape, seed=0, sigma=2.0):
    """Smooth noise from 0 to 1."""
    found = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((found - found.min()) / (found.max() - found.min())).astype(np.float32)


def labeled(store, shape=(90, 110), **more):
    tiledlaf.label(noise(shape), str(store), **{"confidence": True} | OPTIONS | more)
    return str(store)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    return labeled(tmp_path_factory.mktemp("objects") / "out.zarr")


def pixels(store, group):
    return np.asarray(nodes.open_array(store, f"{group}/0")[:])


def test_objects_are_written_beside_labels(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    found = tiledlaf.objects(store, "cell nuclei", min_size="5px", fill_holes=True)
    assert found.group == "labels/tiledlaf-cell nuclei"
    assert ngff.label_names(store) == ["tiledlaf", "tiledlaf-cell nuclei"]
    labels, ids = pixels(store, "labels/tiledlaf"), pixels(store, found.group)
    mask = ndimage.binary_fill_holes(labels == 2, np.ones((3, 3)))
    truth, count = ndimage.label(mask)
    kept = np.bincount(truth.ravel(), minlength=count + 1) >= 5
    kept[0] = False
    np.testing.assert_array_equal(ids, (np.cumsum(kept) * kept)[truth])
    assert ids.dtype == np.uint32
    assert found.count == ids.max() > 5
    table = found.table
    assert table["label"].tolist() == list(range(1, found.count + 1))
    image, sure = noise((90, 110)), pixels(store, "confidence")
    for row, one in enumerate(regionprops(ids, np.stack([image, sure], axis=-1))):
        assert table["area"][row] == one.area
        assert table["perimeter"][row] == pytest.approx(one.perimeter)
        means = table["mean_channel_0"][row], table["mean_confidence"][row]
        assert means == pytest.approx(one.intensity_mean, rel=1e-5)
    assert images.open_image(f"{store}/{found.group}").levels == found.labels.levels
    assert not [name for name in os.listdir(f"{store}/labels") if name.endswith(stores.PART)]


@pytest.mark.slow
def test_small_tiles_and_processes_give_the_same(tmp_path):
    found = []
    for tile, running in ((16, {}), (128, {"scheduler": "processes", "workers": 2})):
        store = labeled(tmp_path / f"{tile}.zarr", tile=tile)
        more = {"running": Running(**running)} if running else {}
        found.append(tiledlaf.objects(store, 2, connectivity="full", **more))
    np.testing.assert_array_equal(*(pixels(one.store, one.group) for one in found))
    for name, column in found[0].table.items():
        np.testing.assert_allclose(column, found[1].table[name], rtol=1e-6, err_msg=name)


def test_objects_are_made_once(shared_store, monkeypatch):
    tiledlaf.objects(shared_store, "cell nuclei")
    result = open_result(shared_store)
    with monkeypatch.context() as patch:
        patch.setattr(making.Work, "make", lambda *_: pytest.fail("made anew"))
        again = tiledlaf.objects(shared_store, "cell nuclei")
        with tasks.threads(1) as pool:
            any_ = finding_objects.find_objects(result, 2, pool, None)
    assert again == any_
    table = finding_objects.read_objects(result, "cell nuclei")
    assert len(table["area"]) == again.count
    larger = tiledlaf.objects(shared_store, "cell nuclei", min_size="40px")
    assert 0 < larger.count < again.count
    assert larger.table["area"].min() >= 40


def test_objects_of_earlier_labels_are_gone(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    found = tiledlaf.objects(store, "cell nuclei")
    before = found.table["area"].sum()
    more = {**OPTIONS, "prototypes": [[0.0], [0.7]]}
    tiledlaf.label(noise((90, 110)), store, overwrite=True, confidence=True, **more)
    assert ngff.label_names(store) == ["tiledlaf"]
    assert not os.path.exists(f"{store}/{found.group}")
    with pytest.raises(InputError, match="objects of cell nuclei of these labels, found none"):
        finding_objects.read_objects(open_result(store), "cell nuclei")
    assert tiledlaf.objects(store, "cell nuclei").table["area"].sum() > before


def test_objects_of_other_labels_do_not_count(tmp_path):
    """Such as of labels that another program has put beside them."""
    store = labeled(tmp_path / "out.zarr")
    found = tiledlaf.objects(store, "cell nuclei")
    notes = ngff.read_notes(store, found.group)
    notes["objects"]["of"]["start"] = "another"
    nodes.write_group(store, found.group, "0.5", 3, {}, notes)
    with pytest.raises(InputError, match="found none"):
        finding_objects.read_objects(open_result(store), "cell nuclei")
    assert tiledlaf.objects(store, "cell nuclei") == found


def test_other_labels_of_the_name_are_refused(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    tiledlaf.label(noise((90, 110)), store, name="tiledlaf-background", **OPTIONS)
    with pytest.raises(InputError, match="several, tiledlaf, tiledlaf-background"):
        tiledlaf.objects(store, "background")
    with pytest.raises(OutputBelongsElsewhere, match="got other labels"):
        tiledlaf.objects(store, "background", name="tiledlaf")
    tiledlaf.objects(store, 2, name="tiledlaf")
    with pytest.raises(OutputBelongsElsewhere, match="are objects"):
        tiledlaf.label(noise((90, 110)), store, name="tiledlaf-cell nuclei", **OPTIONS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cls": "nucleus"}, "expects one of the classes background, cell nuclei, got 'nucleus'"),
        ({"connectivity": "edge"}, "`connectivity` expects face or full, got 'edge'"),
        ({"min_size": 30}, "`min_size` expects a size in pixels, such as 20px, since"),
        ({"min_size": "-3px"}, "`min_size` expects a size in square"),
        ({"fill_holes": "many"}, "`fill_holes` expects a size in square"),
        ({"name": "other"}, "expected an output with labels/other of tiledlaf, got none"),
    ],
)
def test_bad_input_is_one_line(shared_store, given, said):
    with pytest.raises(InputError) as caught:
        tiledlaf.objects(shared_store, **{"cls": "cell nuclei", **given})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unfinished_labels_are_refused(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    place = open_result(store).out.records
    place.write_text("".join(place.read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(InputError, match="expected finished labels"):
        tiledlaf.objects(store, "cell nuclei")


STAGES = ["finding holes", "finding objects", "writing objects", "measuring objects"]


def whole(store, group):
    """All files of a label image and its table, by name."""
    root = pathlib.Path(store, group)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def cut_at(stage, done):
    """Something to tell of progress that interrupts a run after so many tiles of a stage."""

    def tell(record):
        if (record["stage"], record["done"]) == (stage, done):
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_cut_is_not_seen_and_goes_on(tmp_path, shared_store, stage):
    store = labeled(tmp_path / "out.zarr")
    with pytest.raises(KeyboardInterrupt):
        tiledlaf.objects(store, 2, fill_holes=True, progress=cut_at(stage, 4))
    assert ngff.label_names(store) == ["tiledlaf"]
    with pytest.raises(InputError, match="found none"):
        finding_objects.read_objects(open_result(store), 2)
    told = []
    found = tiledlaf.objects(store, 2, fill_holes=True, progress=told.append)
    first = {one["stage"]: one for one in reversed(told)}
    for known in STAGES[: STAGES.index(stage)]:
        assert first[known]["done"] == first[known]["of"] == 12  # and none run again
    assert first[stage]["done"] == 4
    straight = tiledlaf.objects(shared_store, 2, fill_holes=True)
    assert whole(store, found.group).keys() == whole(shared_store, straight.group).keys()
    np.testing.assert_array_equal(pixels(store, found.group), pixels(shared_store, straight.group))
    for name, column in straight.table.items():
        np.testing.assert_array_equal(found.table[name], column, name)
    assert not [name for name in os.listdir(f"{store}/labels") if name.endswith(stores.PART)]


@pytest.mark.parametrize("function", ["_put", "_shown"])
def test_what_is_cut_at_the_end_goes_on(tmp_path, monkeypatch, function):
    store = labeled(tmp_path / "out.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(making, function, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiledlaf.objects(store, "cell nuclei")
    assert ngff.label_names(store) == ["tiledlaf"]
    assert tiledlaf.objects(store, "cell nuclei").count > 5


def begun(store, stage="measuring objects"):
    """The folder of objects that were cut at a stage, and its journal."""
    with pytest.raises(KeyboardInterrupt):
        tiledlaf.objects(store, 2, progress=cut_at(stage, 4))
    (folder,) = (p for p in pathlib.Path(store, "labels").iterdir() if p.suffix == stores.PART)
    return folder, sorted((folder / "journal").iterdir())


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "foreign", "gone", "pixels"])
def test_a_damaged_journal_costs_its_tiles(tmp_path, shared_store, damage):
    store = labeled(tmp_path / "out.zarr")
    folder, files = begun(store)
    for file in files:
        data = file.read_bytes()
        changed = data[:-1] + bytes([data[-1] ^ 1])  # within the last array
        kept = {"cut": data[:-9], "empty": b"", "changed": changed, "foreign": b"x" * 99}
        if damage == "gone":
            file.unlink()
        elif damage != "pixels":
            file.write_bytes(kept[damage])
    (chunk,) = itertools.islice((folder / "labels").glob("*/0/c/*/*"), 1)
    if damage == "pixels":
        chunk.write_bytes(b"")  # as after a power cut
    found = tiledlaf.objects(store, 2)
    straight = tiledlaf.objects(shared_store, 2)
    np.testing.assert_array_equal(pixels(store, found.group), pixels(shared_store, straight.group))
    np.testing.assert_array_equal(found.table["area"], straight.table["area"])


def test_only_the_same_objects_go_on(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    folder, _ = begun(store)
    told = []
    tiledlaf.objects(store, 2, connectivity="full", progress=told.append)
    assert {one["done"] for one in told} >= {1}  # from the first tile on
    assert not folder.exists()  # nobody was at work there


def test_a_folder_in_use_is_left_alone(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    folder, files = begun(store)
    with (folder / "lock").open("a+b") as file:
        folders.lock(file, alone=True)
        told = []
        tiledlaf.objects(store, 2, progress=told.append)
        assert {one["done"] for one in told} >= {1}
        assert all(file.exists() for file in files)
    tiledlaf.objects(store, 2, min_size="9px")
    assert not folder.exists()


def test_the_folder_outlasts_other_leftovers(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    folder, _ = begun(store)
    now = time.time()
    assert units.remove_parts(store, "labels", now + 86400) == 0
    assert units.remove_parts(store, "labels", now + 2 * unfinished.LASTS) == 1
    assert not folder.exists()


def test_labels_that_are_begun_anew_meanwhile(tmp_path):
    store = labeled(tmp_path / "out.zarr")

    def again(record):
        if (record["stage"], record["done"]) == ("measuring objects", 12):
            tiledlaf.label(noise((90, 110)), store, overwrite=True, **OPTIONS | {"time": 0.1})

    with pytest.raises(OutputBelongsElsewhere, match="begun anew while objects of it were made"):
        tiledlaf.objects(store, 2, progress=again)
    assert ngff.label_names(store) == ["tiledlaf"]


def test_objects_of_another_class_are_refused(tmp_path):
    """Whose name makes the same path."""
    store = labeled(tmp_path / "out.zarr", names=["a/b", "a:b"])
    assert tiledlaf.objects(store, "a/b").group == "labels/tiledlaf-a_b"
    with pytest.raises(OutputBelongsElsewhere, match="the objects of another class, 'a/b'"):
        tiledlaf.objects(store, "a:b")


def test_the_command_makes_objects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", noise((90, 110)))
    (tmp_path / "colors.csv").write_text("0\n1\n")
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    options = ["label", "image.npy", "out.zarr", "--prototypes", "colors.csv", "--time", "0.5"]
    options += ["--names", "names.txt", "--tile", "32", "--objects"]
    bad = command.run(*options, "nuclei")
    assert bad.code == 2
    assert "--objects expects one of the classes background, cell nuclei" in bad.err
    assert not os.path.exists("out.zarr")
    for more, said in (
        (["--min-size", "5"], "--min-size expects a size in pixels, such as 20px"),
        (["--connectivity", "4"], "--connectivity expects face or full"),
    ):
        assert said in command.run(*options, "cell nuclei", *more).err
    assert "MiB per worker" in command.run(*options, "cell nuclei", "--dry-run").out
    wanted = ["cell nuclei", "--objects", "background", "--min-size", "5px", "--fill-holes"]
    found = command.run(*options, *wanted)
    assert found.code == 0, found.err
    nuclei = tiledlaf.objects("out.zarr", "cell nuclei", min_size="5px", fill_holes=True)
    assert f"objects: {nuclei.count} of cell nuclei, {nuclei.group}" in found.out
    assert "of background, labels/tiledlaf-background" in found.out
    few = command.run("export", "out.zarr", "few.csv", "--objects", wanted[0], "--min-size", "40px")
    assert few.code == 0, few.err
    held = tiledlaf.objects("out.zarr", "cell nuclei", min_size="40px")
    assert len((tmp_path / "few.csv").read_text().splitlines()) == held.count + 1 < nuclei.count
    bad = command.run("export", "out.zarr", "bad.csv", "--min-size", "40px")
    assert "--min-size: of objects, which --objects asks for" in bad.err


def test_status_and_info_know_objects(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    found = tiledlaf.objects(store, "cell nuclei", min_size="3px")
    assert [one.name for one in status.read(store).labels] == ["tiledlaf"]
    said = "\n".join(text.info(store))
    assert f"objects: {found.count} of the class cell nuclei of labels/tiledlaf" in said
    assert "min_size 3" in said


def test_sizes_in_micrometers(tmp_path):
    import zarr

    image = noise((64, 70))
    path = tmp_path / "image.zarr"
    root = zarr.open_group(path, mode="w")
    root.create_array("0", shape=image.shape, dtype="float32")[:] = image
    scale = {"type": "scale", "scale": [0.5, 0.5]}
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    levels = [{"path": "0", "coordinateTransformations": [scale]}]
    multiscales = [{"axes": axes, "datasets": levels, "name": "image"}]
    root.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    store = str(tmp_path / "out.zarr")
    tiledlaf.label(path, store, **OPTIONS)
    found = tiledlaf.objects(store, "cell nuclei", min_size=2.5, fill_holes=1)
    assert found.settings["min_size"] == 10
    assert found.settings["largest_hole"] == 4
    table = found.table
    np.testing.assert_allclose(table["area_um2"], table["area"] / 4)
    np.testing.assert_allclose(table["perimeter_um"], table["perimeter"] / 2)
    np.testing.assert_allclose(table["axis_major_um"], table["axis_major"] / 2)


def test_volumes_and_time_points(tmp_path):
    for axes, shape in (("zyx", (12, 40, 44)), ("tyx", (3, 40, 44))):
        store = str(tmp_path / f"{axes}.zarr")
        image = noise(shape, sigma=(0 if axes[0] == "t" else 1, 2, 2))
        more = {"time_point": "all"} if axes[0] == "t" else {}
        tiledlaf.label(image, store, axes=axes, **OPTIONS, **more)
        found = tiledlaf.objects(store, "cell nuclei", min_size="4px")
        inner = ndimage.generate_binary_structure(3, 1)
        if axes[0] == "t":
            inner[0] = inner[2] = False
        truth, count = ndimage.label(pixels(store, "labels/tiledlaf") == 2, inner)
        kept = np.bincount(truth.ravel(), minlength=count + 1) >= 4
        kept[0] = False
        np.testing.assert_array_equal(pixels(store, found.group), (np.cumsum(kept) * kept)[truth])
        times = found.table.get("t")
        assert (times is None) == (axes == "zyx")
        if times is not None:
            assert set(times.tolist()) == {0, 1, 2}


def test_no_objects_are_an_empty_table(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    found = tiledlaf.objects(store, "cell nuclei", min_size="100000px")
    assert found.count == 0
    assert {len(column) for column in found.table.values()} == {0}
    assert not pixels(store, found.group).any()


@pytest.mark.parametrize("region", [[], ["--region", "16:80,8:100"]])
def test_channels_of_an_input_that_is_not_copied(tmp_path, monkeypatch, region):
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", noise((90, 110)))
    (tmp_path / "colors.csv").write_text("0\n1\n")
    command.run("label", "image.npy", "in.zarr", "--prototypes", "colors.csv")
    same = ["--prototypes", "colors.csv", "--tile", "32", "--objects", "class 2", *region]
    outputs = {"copied.zarr": [], "alone.zarr": ["--no-image"]}
    for output, more in outputs.items():
        assert command.run("label", "image.npy", output, *same, *more).code == 0
    found = command.run("label", "in.zarr", "--into-input", "--name", "a", *same)
    assert (found.code, found.err.count("no means")) == (0, 0)
    tables = [
        finding_objects.read_objects(open_result(path, name), "class 2")
        for path, name in (("copied.zarr", None), ("alone.zarr", None), ("in.zarr", "a"))
    ]
    assert len(tables[0]["label"]) > 2
    for other in tables[1:]:
        assert list(other) == list(tables[0])
        np.testing.assert_allclose(other["mean_channel_0"], tables[0]["mean_channel_0"], rtol=1e-6)


@pytest.fixture
def cloud(tmp_path):
    with standing_in(tmp_path / "cloud"):
        yield "s3://bucket/out.zarr"


def test_object_stores(cloud, shared_store, monkeypatch):
    running = {"running": Running(scheduler="threads")}
    labeled(cloud, scheduler="threads")
    for number, stage in enumerate(STAGES):
        told, cut = [], cut_at(stage, 6)
        more = {"progress": lambda one, told=told, cut=cut: (told.append(one), cut(one))}
        with pytest.raises(KeyboardInterrupt):
            tiledlaf.objects(cloud, 2, fill_holes=True, **running, **more)
        assert told[0] == {"stage": STAGES[0], "done": (1, 6, 12, 12)[number], "of": 12}
        assert ngff.label_names(cloud) == ["tiledlaf"]
        with pytest.raises(InputError, match="found none"):
            finding_objects.read_objects(open_result(cloud), 2)
    # nor are they listed by a run of other labels, which lists all that are whole
    labeled(cloud, scheduler="threads", name="other", copy_image=False, confidence=False)
    assert ngff.label_names(cloud) == ["tiledlaf", "other"]
    found = tiledlaf.objects(cloud, 2, name="tiledlaf", fill_holes=True, **running)
    here = tiledlaf.objects(shared_store, 2, fill_holes=True)
    np.testing.assert_array_equal(pixels(cloud, found.group), pixels(shared_store, here.group))
    for name, column in here.table.items():
        np.testing.assert_array_equal(found.table[name], column, name)
    assert found.group.removeprefix("labels/") in ngff.label_names(cloud)
    # labels that are made anew have none
    tiledlaf.label(noise((90, 110)), cloud, overwrite=True, **OPTIONS | {"time": 0.1})
    assert found.group.removeprefix("labels/") not in ngff.label_names(cloud)


def test_runs_of_other_objects_do_not_mix_on_an_object_store(cloud, shared_store, monkeypatch):
    """While one makes them another is refused; the same joins; a killed one is soon forgotten."""
    running = {"running": Running(scheduler="threads")}
    labeled(cloud, scheduler="threads")
    first, claims = {"min_size": "5px"}, f"labels/tiledlaf-cell nuclei/{CLAIMS}"
    said = []

    def progress(record):
        if said:
            return
        said.append("")
        with pytest.raises(OutputBelongsElsewhere) as error:
            tiledlaf.objects(cloud, 2, min_size="9px", **running)
        said.append(str(error.value))
        said.append(tiledlaf.objects(cloud, 2, **first, **running).count)

    found = tiledlaf.objects(cloud, 2, **first, progress=progress, **running)
    assert (
        "another run is making these objects: it has min_size 5; this run has min_size 9" in said[1]
    )
    here = tiledlaf.objects(shared_store, 2, **first)
    assert said[2] == found.count == here.count
    np.testing.assert_array_equal(pixels(cloud, found.group), pixels(shared_store, here.group))
    assert stores.at(cloud).names(claims) == []

    def killed(lease):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(leases.Lease, "end", killed)
        patch.setattr(making, "_measured", lambda *_: killed(None))
        with pytest.raises(KeyboardInterrupt):
            tiledlaf.objects(cloud, 2, min_size="7px", **running)
    with pytest.raises(OutputBelongsElsewhere, match="it has min_size 7"):
        tiledlaf.objects(cloud, 2, **first, **running)
    monkeypatch.setattr(leases, "PATIENCE", 0.0)
    again = tiledlaf.objects(cloud, 2, **first, **running)
    np.testing.assert_array_equal(pixels(cloud, again.group), pixels(shared_store, here.group))


@pytest.mark.parametrize("how", ["another", "removed"])
def test_a_run_that_has_lost_its_objects_ends(cloud, monkeypatch, how):
    """As one that was stopped for so long that another has begun."""
    running = {"running": Running(scheduler="threads")}
    labeled(cloud, scheduler="threads")
    monkeypatch.setattr(leases, "RENEWED", 0.0)
    count = 0

    def progress(record):
        nonlocal count
        count += 1
        group = "labels/tiledlaf-cell nuclei"
        if count == 1 and how == "removed":
            stores.at(cloud).remove(group)
        elif count == 1:
            line = b'{"objects": {"settings": {"min_size": 3}, "of": {}}, "time": 0}'
            stores.at(cloud).create(f"{group}/{CLAIMS}/000002", line)

    said = "another run has begun these objects: it has" if how == "another" else "was removed"
    with pytest.raises(OutputBelongsElsewhere, match=said):
        tiledlaf.objects(cloud, 2, min_size="5px", progress=progress, **running)
    assert count == 1


def test_a_worker_without_memory_is_refused(shared_store):
    result = open_result(shared_store)
    with tasks.threads(1) as pool:
        small = dataclasses.replace(pool, memory=100 * 2**20)
        with pytest.raises(tiledlaf.NotEnoughMemory, match=r"would need \d+ MiB for objects"):
            finding_objects.find_objects(result, 1, small)


def test_damaged_notes_and_tables_are_one_line(tmp_path):
    store = labeled(tmp_path / "out.zarr")
    found = tiledlaf.objects(store, "cell nuclei")
    notes = ngff.read_notes(store, found.group)
    for key in ("count", "settings", "channels"):
        broken = {**notes, "objects": {**notes["objects"], key: None}}
        nodes.write_group(store, found.group, "0.5", 3, {}, broken)
        with pytest.raises(tiledlaf.DamagedFile, match="its notes on labels"):
            tiledlaf.objects(store, "cell nuclei")
    nodes.write_group(store, found.group, "0.5", 3, {}, notes)
    table = f"{found.group}/table"
    listed = ngff.read_notes(store, table)
    for broken in ({"rows": 3}, {"columns": ["../../0"]}, {"columns": "area"}):
        nodes.write_group(store, table, "0.4", 3, {}, {**listed, **broken})
        with pytest.raises(tiledlaf.DamagedFile, match="expected"):
            found.table  # noqa: B018


@pytest.mark.parametrize("what", ["labels/tiledlaf/0", "0"])
def test_damaged_pixels_are_named(tmp_path, what):
    """A codec raises what it likes; nothing is made of what cannot be read."""
    store = labeled(tmp_path / "out.zarr", (30, 30))
    (chunk,) = (p for p in (tmp_path / "out.zarr" / what / "c").rglob("*") if p.is_file())
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-30] + bytes(30))
    with pytest.raises(ValueError, match=r"out\.zarr.*cannot be read"):
        tiledlaf.objects(store, "cell nuclei")
    assert ngff.label_names(store) == ["tiledlaf"]


def test_settings_read_the_words_of_the_command():
    assert Finding(min_size="12px").settings(None)["min_size"] == 12
    assert Finding(min_size="3").settings((0.5, 0.5))["min_size"] == 12
    assert Finding(fill_holes="7").settings((2.0, 1.0, 1.0))["largest_hole"] == 3
    assert Finding(fill_holes=True).settings(None)["largest_hole"] is None
    for size in (1e308, "1e308px"):
        found = Finding(min_size=size, fill_holes=size).settings((0.1, 0.1))
        assert found["min_size"] == found["largest_hole"] == 2**62
